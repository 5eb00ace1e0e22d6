// grad ← grad·min(1, limit/(norm + 1e-6)), the form of PyTorch's clip_grad_norm_; n elements, one an
// invocation, 8 bytes an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  grad[i] *= min(1.0, p.limit / (norm[0] + 1e-6));
}
