// parts[s] = A[:, piece s]·B[piece s, :] for one to three rows and a long K, on software drivers whose subgroups
// have 8 lanes; A [M,K], B [K,N], parts [⌈K/PIECE⌉, M, N], whose sum is C = A·B.
// One workgroup is one subgroup and owns all rows × 8·STEP·LOADS columns of a piece; a lane owns STEP neighbouring
// ones of each block of 8·STEP, one load of four words, be they of 32 or 64 bits. A step takes eight k: of A a lane
// loads one, which reaches the others through a shuffle with a constant lane.
// Why: as in matmul_few, every weight is loaded once, where the tile of matmul_subgroup would compute eight rows to
// keep one. Workgroups beside each other read the same PIECE rows of B, so that they come from memory in order.
// Past the end of K the last row of B is repeated, times zero. The blocks marked //# are unrolled.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
  let lane = id.x;
  let col = (wg.x * LOADS * 8u + lane) * STEP;
  let first = wg.y * PIECE;
  //#zero
  for (var k = first; k < min(first + PIECE, p.K); k += 8u) {
    let mine = min(k + lane, p.K - 1u);
    let inside = f32(k + lane < p.K);
    //#loads
    //#products
  }
  //#store
}

fn keep(row: u32, col: u32, piece: u32, value: f32) {
  if (col < p.N) { parts[(piece * p.M + row) * p.N + col] = value; }
}
