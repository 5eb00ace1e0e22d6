// ds[q, c] = Σ over rows r of group q of dy[r, c] x[r, c]; s [groups, width]. One invocation an element of ds, rows in
// order.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x;
  if (at >= p.n) { return; }
  let q = at / p.width;
  let c = at % p.width;
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    if (group[r] == q) { sum += dy[r * p.width + c] * x[r * p.width + c]; }
  }
  ds[at] = sum;
}
