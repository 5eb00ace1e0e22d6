// Copies a rectangle with scaled columns into any orientation and precision: y(i, j) = s_j A(i, j).
//   A(i, j) at srcOffset + i·srcRow + j·srcCol of src;  y(i, j) at yOffset + i·yRow + j·yCol
// Columns [cols, width) of y become zero: the padding of a triangular solve. One invocation an element; the
// grid is folded, so the element is a linear index.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) id: u32) {
  let t = (wg.y * grid.x + wg.x) * 64u + id;
  let i = t / p.width;
  let j = t % p.width;
  if (i >= p.rows) { return; }
  var v = real(0);
  if (j < p.cols) { v = real(src[p.srcOffset + i * p.srcRow + j * p.srcCol]) * real(scale[j]); }
  y[p.yOffset + i * p.yRow + j * p.yCol] = v;
}
