// param ← clamp(param, base − radius, base + radius), n elements, one an invocation. base f32, f16 or bf16.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let center = load_weight(i);
  param[i] = clamp(param[i], center - p.radius, center + p.radius);
}
