// y[to + i] (+)= x[first + i] as f32, n elements, one an invocation; x f32, f16 or bf16.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var value = load_weight(p.first + i);
  if (ACC) { value += y[p.to + i]; }
  y[p.to + i] = value;
}
