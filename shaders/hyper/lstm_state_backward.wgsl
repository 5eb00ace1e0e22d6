// Backward of lstm_state: dz (its o part 0) and the gradient to the state before. One invocation an element of c.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x;
  if (at >= p.n) { return; }
  let r = at / p.width;
  let z0 = 4u * r * p.width + at % p.width;
  let d = dc[at];
  var to = vec4<f32>(0.0, 0.0, 0.0, d);
  if (live[r] != 0u) {
    let i = sigmoid(z[z0]);
    let f = sigmoid(z[z0 + p.width]);
    let g = hyperbolic(z[z0 + 2u * p.width]);
    to = vec4<f32>(d * g * i * (1.0 - i), d * before[at] * f * (1.0 - f), d * i * (1.0 - g * g), d * f);
  }
  dz[z0] = to.x;
  dz[z0 + p.width] = to.y;
  dz[z0 + 2u * p.width] = to.z;
  dz[z0 + 3u * p.width] = 0.0;
  dbefore[at] = to.w;
}
