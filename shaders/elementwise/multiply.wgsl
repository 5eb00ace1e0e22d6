// y (+)= a·b elementwise, n elements. An invocation computes one: 12 bytes an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var v = a[i] * b[i];
  if (ACC) { v += y[i]; }
  y[i] = v;
}
