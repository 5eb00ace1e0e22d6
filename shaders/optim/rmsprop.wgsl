// Centred RMSprop (Graves 2013; PyTorch's `centered=True`) on n elements, one an invocation. Mean and variance of the
// gradient decay by `keep`, with rest = 1 − keep:
//   d = g − mean;  variance ← keep·(variance + rest·d²);  mean ← mean + rest·d
//   θ ← max(θ − lr·g/(√variance + eps), floor)
// The variance is kept itself: PyTorch takes it as the difference of two means, which cancels. 28 bytes an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let g = grad[i];
  let d = g - mean[i];
  let spread = p.keep * (variance[i] + p.rest * d * d);
  variance[i] = spread;
  mean[i] += p.rest * d;
  param[i] = max(param[i] - p.lr * g / (sqrt(spread) + p.eps), p.floor);
}
