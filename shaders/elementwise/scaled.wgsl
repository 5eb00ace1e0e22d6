// y (+)= alpha·x, n elements, one an invocation: 8 bytes an element, 12 with ACC. alpha = 1 copies exactly.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var v = p.alpha * x[i];
  if (ACC) { v += y[i]; }
  y[i] = v;
}
