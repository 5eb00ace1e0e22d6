// C[M,N] (+)= A·B for software drivers whose subgroups have 8 lanes.
//   nt: A [M,K], B [N,K]    nn: A [M,K], B [K,N]    tn: A [K,M], B [K,N]
// One workgroup is one subgroup and owns ROWS rows × 8·COLS columns; a lane owns COLS columns. Eight steps
// of k at a time: each lane first loads its 8·COLS weights, then for every row the subgroup loads eight
// values of A with one gather (lane i takes k+i) and broadcasts them. No barrier, no workgroup memory.
// Why: a load costs about 12 cycles here, contiguous or not, a broadcast under one; so the kernel makes
// 16·COLS·ROWS/(8·COLS+ROWS) multiply-adds a load. Rows and columns past the end are clamped for loads and
// dropped at the store. The blocks marked //# are unrolled by kernels/matmul.ts.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
  let lane = id.x;
  let row0 = wg.x * ROWS;
  let col0 = wg.y * 8u * COLS;
  //#addresses
  //#zero
  let whole = p.K - p.K % 8u;
  for (var k = 0u; k < whole; k += 8u) {
    //#weights
    //#products
  }
  for (var k = whole; k < p.K; k++) {
    //#tail
  }
  //#store
}
