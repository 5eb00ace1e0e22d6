// How much the loss would change without a parameter, smoothed over steps, and how uncertain that is
// (AdaLoRA, Zhang et al. 2023, equations 8 to 10); n elements, one an invocation:
//   s = |θ·g|;  mean ← β1·mean + (1 − β1)·s;  spread ← β2·spread + (1 − β2)·|s − mean|
// 24 bytes an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let s = abs(param[i] * grad[i]);
  let smooth_s = p.beta1 * mean[i] + (1.0 - p.beta1) * s;
  mean[i] = smooth_s;
  spread[i] = p.beta2 * spread[i] + (1.0 - p.beta2) * abs(s - smooth_s);
}
