// C[M,N] = A·Bᵀ for one to three rows, A [M,K], B [N,K], on software drivers whose subgroups have 8 lanes.
// One workgroup is one subgroup and owns all rows × 8 columns; lanes run along k, STEP of it each: one load of four
// words, be they of 32 or 64 bits. Every weight is loaded once and nothing is broadcast; the lanes' sums are added
// at the end, and lane n stores column n.
// Why: with few rows the loads of B are all the cost, and the tile of matmul_subgroup would compute eight
// rows to keep one. Past the end of K a lane repeats the last weights, times zero.
// The blocks marked //# are unrolled.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
  let lane = id.x;
  let col0 = wg.x * 8u;
  //#addresses
  //#zero
  for (var k = 0u; k < p.K; k += 8u * STEP) {
    let at = min(k + STEP * lane, p.K - STEP);
    let inside = f32(k + STEP * lane < p.K);
    //#loads
    //#products
  }
  //#store
}
