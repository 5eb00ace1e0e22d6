// Backward of lstm_output: dz (its i, f and g parts 0), dc and the gradient to the output before. One invocation an
// element of h.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x;
  if (at >= p.n) { return; }
  let r = at / p.width;
  let z0 = 4u * r * p.width + at % p.width;
  let d = dh[at];
  var to = vec3<f32>(0.0, 0.0, d);
  if (live[r] != 0u) {
    let o = sigmoid(z[z0 + 3u * p.width]);
    let t = hyperbolic(c[at]);
    to = vec3<f32>(d * t * o * (1.0 - o), d * o * (1.0 - t * t), 0.0);
  }
  dz[z0] = 0.0;
  dz[z0 + p.width] = 0.0;
  dz[z0 + 2u * p.width] = 0.0;
  dz[z0 + 3u * p.width] = to.x;
  dc[at] = to.y;
  dbefore[at] = to.z;
}
