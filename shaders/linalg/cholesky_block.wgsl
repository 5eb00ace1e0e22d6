// A = L Lᵀ of one 32×32 diagonal block; writes L into the panel and, transposed, into the column buffer.
//   panel: a row panel of the triangle, block at (k0, k0);  pt: pt[slot + j, k0 + i] = L[i, j], rows ld apart
//   status: word 0 the failed column + 1, word 1 the bits of its pivot as f32
// One workgroup of 32 invocations, one a row; the block lives in workgroup memory (8 KiB in f64). Column j
// subtracts the dot of rows i and j (left-looking), then divides by the root of the pivot. The matrix is
// scaled to a diagonal near 1, so a good pivot is an f32 from `least` (rounding noise) up to a few: tested on
// its bits, since compilers fold comparisons with NaN.
var<workgroup> l: array<array<real, 32>, 32>;
var<workgroup> failed: u32;

@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) i: u32) {
  if (status[0] != 0u) { return; }
  let at = (p.k0 + i - p.panelRow) * p.panelLd + p.k0;
  for (var j = 0u; j < 32u; j++) { l[i][j] = panel[at + j]; }
  workgroupBarrier();
  for (var j = 0u; j < 32u; j++) {
    var s = l[i][j];
    for (var k = 0u; k < j; k++) { s -= l[i][k] * l[j][k]; }
    if (i == j) { l[j][j] = s; }
    workgroupBarrier();
    let pivot = l[j][j];
    let bits = bitcast<u32>(f32(pivot));
    if (i == j && failed == 0u && (bits < bitcast<u32>(p.least) || bits >= 0x7f800000u)) {
      failed = 1u;
      status[0] = p.k0 + j + 1u;
      status[1] = bits;
    }
    if (i > j) { l[i][j] = s / sqrt(pivot); }
    workgroupBarrier();
    if (i == j) { l[j][j] = sqrt(pivot); }
  }
  for (var j = 0u; j <= i; j++) {
    panel[at + j] = l[i][j];
    pt[(p.slot + j) * p.ld + p.k0 + i] = l[i][j];
  }
}
