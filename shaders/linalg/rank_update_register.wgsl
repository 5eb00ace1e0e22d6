// C[i, j] ∓= Σ_k A[k, i] A[k, j] on 64×64 tiles of a lower triangle, straight from storage into registers.
//   A [K, n] with row distance ld; C a row panel of the triangle (see engine/linalg/panels.ts)
// For software drivers in f64, and in f32 where they have no subgroups. One workgroup owns a tile, one
// invocation TM × TN elements of it, UNROLL steps of k a trip: TM + TN loads make TM·TN multiply-adds, and
// loads are what costs there. No barrier, no workgroup memory. Indices past the end are clamped for loads
// and dropped at the store. The blocks marked //# are unrolled by kernels/linalg.ts.
const ACROSS: u32 = 64u / TN;

@compute @workgroup_size(4096u / (TM * TN))
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
  let tile = tile_of(wg);
  let row0 = p.rowBegin + 64u * tile.x + id / ACROSS * TM;
  let col0 = p.colBegin + 64u * tile.y + id % ACROSS;
  //#addresses
  //#zero
  let whole = p.K - p.K % UNROLL;
  for (var k = 0u; k < whole; k += UNROLL) {
    let at = p.aOffset + k * p.ld;
    //#products
  }
  for (var k = whole; k < p.K; k++) {
    let at = p.aOffset + k * p.ld;
    //#tail
  }
  //#store
}
