// C[i, j] ∓= Σ_k A[k, i] A[k, j] on 64×64 tiles of a lower triangle, f32, for software drivers whose
// subgroups have 8 lanes.
//   A [K, n] with row distance ld; C a row panel of the triangle (see engine/linalg/panels.ts)
// One workgroup owns a tile, one subgroup 16 rows × 16 columns of it, a lane two columns. Eight steps of k
// at a time: a lane loads its 16 column values, then for each row the subgroup loads eight values with one
// gather (lane i takes k + i) and broadcasts them: 32 loads for 256 multiply-adds. Indices past the end are
// clamped for loads and dropped at the store. The blocks marked //# are unrolled by linalg_rank.ts.
@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
  let tile = tile_of(wg);
  let lane = id % 8u;
  let part = id / 8u;
  let row0 = p.rowBegin + 64u * tile.x + part / 4u * 16u;
  let col0 = p.colBegin + 64u * tile.y + part % 4u * 16u + lane;
  //#addresses
  //#zero
  let whole = p.K - p.K % 8u;
  for (var k = 0u; k < whole; k += 8u) {
    let at = p.aOffset + k * p.ld;
    let mine = at + lane * p.ld;
    //#weights
    //#products
  }
  for (var k = whole; k < p.K; k++) {
    let at = p.aOffset + k * p.ld;
    //#tail
  }
  //#store
}
