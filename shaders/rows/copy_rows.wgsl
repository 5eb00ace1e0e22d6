// Gather: y[i] (+)= x[index[i]]. Scatter: y[index[i]] (+)= x[i]; the indices of a scatter are distinct.
// x, y [·, width], index [n / width]. An invocation copies one element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let indexed = index[i / p.width] * p.width + i % p.width;
  let source = select(indexed, i, SCATTER);
  let at = select(i, indexed, SCATTER);
  var v = x[source];
  if (ACC) { v += y[at]; }
  y[at] = v;
}
