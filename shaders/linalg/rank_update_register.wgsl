// C[i, j] ∓= Σ_k A[k, i] A[k, j] on 64×64 tiles of a lower triangle, straight from storage into registers.
//   A [K, n] with row distance ld; C a row panel of the triangle (see engine/linalg/panels.ts)
// For software drivers in f64, and in f32 where they have no subgroups. One workgroup of 8×8 invocations owns
// a tile, an invocation 8 neighbouring rows × 8 columns 8 apart: 16 loads make 64 multiply-adds, and loads
// are what costs there (the accumulators spill, which is cheaper). No barrier, no workgroup memory. Indices
// past the end are clamped for loads and dropped at the store. The blocks //# come from linalg_rank.ts.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
  let tile = tile_of(wg);
  let row0 = p.rowBegin + 64u * tile.x + id / 8u * 8u;
  let col0 = p.colBegin + 64u * tile.y + id % 8u;
  //#addresses
  //#zero
  for (var k = 0u; k < p.K; k++) {
    let at = p.aOffset + k * p.ld;
    //#products
  }
  //#store
}
