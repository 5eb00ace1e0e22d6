// y[i, j] (+)= alpha · x[i, j] · s[first + j]; x and y [rows, cols]. One invocation an element; x and y are
// touched once, s stays in the cache.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var value = p.alpha * x[i] * s[p.first + i % p.cols];
  if (ACC) { value += y[i]; }
  y[i] = value;
}
