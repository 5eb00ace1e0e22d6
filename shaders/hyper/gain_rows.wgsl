// y[r, c] (+)= alpha · s[at] · keep[r] · x[r, c]; x and y [rows, width], keep 0 or 1. One invocation an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var value = 0.0;
  if (keep[i / p.width] != 0u) { value = p.alpha * s[p.at] * x[i]; }
  if (ACC) { value += y[i]; }
  y[i] = value;
}
