// The cell state of an LSTM step, gates z [rows, 4·width] in PyTorch's order i, f, g, o:
//   c = σ(f) ⊙ before + σ(i) ⊙ tanh(g)   in rows that go on, c = before in those that have ended
// One invocation an element of c [rows, width].
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x;
  if (at >= p.n) { return; }
  let r = at / p.width;
  let z0 = 4u * r * p.width + at % p.width;
  var value = before[at];
  if (live[r] != 0u) {
    value = sigmoid(z[z0 + p.width]) * value + sigmoid(z[z0]) * hyperbolic(z[z0 + 2u * p.width]);
  }
  c[at] = value;
}
