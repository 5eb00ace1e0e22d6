// C[i, j] ∓= Σ_k A[k, i] A[k, j] on 64×64 tiles of a lower triangle, through workgroup memory, for GPUs.
//   A [K, n] with row distance ld; C a row panel of the triangle (see engine/linalg/panels.ts)
// One workgroup of 16×16 invocations owns a tile, an invocation 4×4 elements 16 apart, so that neighbours
// load and store contiguously. Slices of 8 k of both column ranges go through workgroup memory: 8 KiB in
// f64. An element of A is read n/64 times. Elements past the end are zero and dropped at the store.
const SLICE: u32 = 8u;
var<workgroup> left: array<array<real, 64>, SLICE>;
var<workgroup> right: array<array<real, 64>, SLICE>;

fn load(k: u32, i: u32) -> real {
  if (k >= p.K || i > p.last) { return real(0); }
  return a[p.aOffset + k * p.ld + i];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
  let tile = tile_of(wg);
  let row0 = p.rowBegin + 64u * tile.x;
  let col0 = p.colBegin + 64u * tile.y;
  let x = id % 16u;
  let y = id / 16u;
  //#zero
  for (var k0 = 0u; k0 < p.K; k0 += SLICE) {
    for (var s = 0u; s < 2u; s++) {
      let k = id / 64u + 4u * s;
      left[k][id % 64u] = load(k0 + k, row0 + id % 64u);
      right[k][id % 64u] = load(k0 + k, col0 + id % 64u);
    }
    workgroupBarrier();
    for (var k = 0u; k < SLICE; k++) {
      //#products
    }
    workgroupBarrier();
  }
  //#store
}
