// dx (+)= dy·f'(x), n elements. An invocation computes one element: 12 bytes an element, 16 with ACC.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var v = dy[i] * d_act(x[i]);
  if (ACC) { v += dx[i]; }
  dx[i] = v;
}
