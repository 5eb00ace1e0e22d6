// dz (+)= dy·up·f'(z), dup (+)= dy·f(z), n elements. 20 bytes an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let g = dy[i];
  let v = z[i];
  var to_gate = g * up[i] * d_act(v);
  var to_up = g * act(v);
  if (ACC_GATE) { to_gate += dz[i]; }
  if (ACC_UP) { to_up += dup[i]; }
  dz[i] = to_gate;
  dup[i] = to_up;
}
