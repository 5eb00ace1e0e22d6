// The output of an LSTM step, gates z [rows, 4·width] in PyTorch's order i, f, g, o:
//   h = σ(o) ⊙ tanh(c)   in rows that go on, h = before in those that have ended
// One invocation an element of h [rows, width].
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x;
  if (at >= p.n) { return; }
  let r = at / p.width;
  var value = before[at];
  if (live[r] != 0u) {
    value = sigmoid(z[4u * r * p.width + 3u * p.width + at % p.width]) * hyperbolic(c[at]);
  }
  h[at] = value;
}
