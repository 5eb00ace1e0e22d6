// Backward of residual_relu, whose rectifier has the derivative 1 at exactly 0: with m = [x ⊙ s + t ≥ 0] and g = dy ⊙ m
//   dx = g ⊙ s;  ds[q] = Σ_r g ⊙ x;  dt[q] = Σ_r g
// with AFTER, m = [x ≥ 0]:  dx = dy ⊙ s ⊙ m;  ds[q] = Σ_r dy ⊙ max(0, x);  dt[q] = Σ_r dy
// over the rows of mode q. One invocation an element of s, which walks through its rows in order: no atomics.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let j = id.x;
  if (j >= p.modes * p.width) { return; }
  let q = j / p.width;
  let c = j % p.width;
  var sum_s = 0.0;
  var sum_t = 0.0;
  for (var r = first[q]; r < first[q + 1u]; r++) {
    let i = r * p.width + c;
    let z = select(x[i] * s[j] + t[j], x[i], AFTER);
    let m = select(0.0, 1.0, z >= 0.0);
    let g = dy[i] * m;
    dx[i] = g * s[j];
    sum_s += g * x[i];
    sum_t += select(g, dy[i], AFTER);
  }
  ds[j] = sum_s;
  dt[j] = sum_t;
}
