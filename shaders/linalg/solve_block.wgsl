// L x = b (BACK = false) or Lᵀ x = b (BACK = true) for one 64×64 diagonal block and m right-hand sides.
//   panel: a row panel of the factor holding the block (k0, k0);  b [n, m]: rows [k0, k0 + 64) become x
// One invocation owns one right-hand side and substitutes row by row: 64·63/2 multiply-adds.
fn order(r: u32) -> u32 { return select(r, 63u - r, BACK); }

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let col = id.x;
  if (col >= p.m) { return; }
  let corner = (p.k0 - p.panelRow) * p.panelLd + p.k0;
  let first = p.k0 * p.m + col;
  for (var r = 0u; r < 64u; r++) {
    let i = order(r);
    var s = b[first + i * p.m];
    for (var t = 0u; t < r; t++) {
      let j = order(t);
      s -= panel[corner + select(i * p.panelLd + j, j * p.panelLd + i, BACK)] * b[first + j * p.m];
    }
    b[first + i * p.m] = s / panel[corner + i * p.panelLd + i];
  }
}
