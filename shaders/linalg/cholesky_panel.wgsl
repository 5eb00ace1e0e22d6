// X Lᵀ = A for the rows below a factored 32×32 diagonal block: 32 columns of the Cholesky factor.
//   panel: a row panel of the triangle, columns [k0, k0 + 32) of rows [rowBegin, rowEnd) are A and become X
//   pt: holds L at pt[slot + j, k0 + i]; receives pt[slot + j, row] = X[row, j] for the rank update
// One invocation solves one row by substitution, four columns at a time so that a load of x serves four
// multiply-adds; it reads back the x that it wrote itself.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = p.rowBegin + id.x;
  if (row >= p.rowEnd) { return; }
  let at = (row - p.panelRow) * p.panelLd + p.k0;
  for (var c = 0u; c < 32u; c += 4u) {
    var x0 = panel[at + c];
    var x1 = panel[at + c + 1u];
    var x2 = panel[at + c + 2u];
    var x3 = panel[at + c + 3u];
    for (var q = 0u; q < c; q++) {
      let line = (p.slot + q) * p.ld;
      let x = pt[line + row];
      let l = line + p.k0 + c;
      x0 -= x * pt[l];
      x1 -= x * pt[l + 1u];
      x2 -= x * pt[l + 2u];
      x3 -= x * pt[l + 3u];
    }
    let line0 = (p.slot + c) * p.ld;
    let l0 = line0 + p.k0 + c;
    let l1 = l0 + p.ld;
    let l2 = l1 + p.ld;
    x0 = x0 / pt[l0];
    x1 = (x1 - x0 * pt[l0 + 1u]) / pt[l1 + 1u];
    x2 = (x2 - x0 * pt[l0 + 2u] - x1 * pt[l1 + 2u]) / pt[l2 + 2u];
    x3 = (x3 - x0 * pt[l0 + 3u] - x1 * pt[l1 + 3u] - x2 * pt[l2 + 3u]) / pt[l2 + p.ld + 3u];
    panel[at + c] = x0;
    panel[at + c + 1u] = x1;
    panel[at + c + 2u] = x2;
    panel[at + c + 3u] = x3;
    let out = line0 + row;
    pt[out] = x0;
    pt[out + p.ld] = x1;
    pt[out + 2u * p.ld] = x2;
    pt[out + 3u * p.ld] = x3;
  }
}
