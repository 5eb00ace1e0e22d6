// Adam (Kingma and Ba 2015) with decoupled weight decay, in the form and order of PyTorch; n elements of
// param, grad, m, v, one an invocation; t = step[0]:
//   θ ← θ·keep;  m ← m + c1·(g − m);  v ← (1 − c2)·v + c2·g²
//   θ ← θ − lr/(1 − β1^t) · m / (√v/√(1 − β2^t) + eps)
// c1 = 1 − β1, c2 = 1 − β2 and log β come from the host in full precision: 1 − 0.999 in f32 is off by 1e-5.
// ROWS: row i/width is left alone unless rows_on is set for it. 28 bytes an element.

// 1 − exp(z) for z ≤ 0: a series near 0, where the difference would cancel.
fn one_minus_exp(z: f32) -> f32 {
  let near = -z * (1.0 + z * (0.5 + z * (0.16666667 + z * (0.041666667 + z * (0.0083333333 +
    z * (0.0013888889 + z * 0.0001984127))))));
  return select(1.0 - exp(max(z, -87.0)), near, z > -0.5);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  if (ROWS) {
    if (rows_on[p.first + i / p.width] == 0u) { return; }
  }
  let t = f32(step[0]);
  let g = grad[i];
  let first = m[i] + p.c1 * (g - m[i]);
  let second = v[i] - p.c2 * v[i] + p.c2 * g * g;
  m[i] = first;
  v[i] = second;
  let rate = p.lr / one_minus_exp(t * p.log_beta1);
  let size = sqrt(second) / sqrt(one_minus_exp(t * p.log_beta2)) + p.eps;
  param[i] = param[i] * p.keep - rate * first / size;
}
