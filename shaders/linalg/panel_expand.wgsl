// Writes a triangle's row panel into a dense symmetric matrix, weight · (c + lo)[i, j] at (i, j) and (j, i).
//   c, lo: the panel and its low words;  y: rows [rowBegin, rowEnd) of the dense [n, n]
// One invocation an element (i, j) of the panel; it writes each of its two places that this shard holds.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = p.panelRow + id.y;
  let j = id.x;
  if (i >= p.n || j > i) { return; }
  let at = (i - p.panelRow) * p.panelLd + j;
  let v = (c[at] + lo[at]) * p.weight;
  if (i >= p.rowBegin && i < p.rowEnd) { y[(i - p.rowBegin) * p.n + j] = v; }
  if (j >= p.rowBegin && j < p.rowEnd) { y[(j - p.rowBegin) * p.n + i] = v; }
}
