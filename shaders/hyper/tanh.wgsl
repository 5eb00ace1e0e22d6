// y = tanh(x), by exponentials of bounded numbers; BACK: y = dy (1 − y²) with x the tanh itself. One invocation an
// element.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x;
  if (at >= p.n) { return; }
  if (BACK) {
    y[at] = dy[at] * (1.0 - x[at] * x[at]);
  } else {
    y[at] = hyperbolic(x[at]);
  }
}
