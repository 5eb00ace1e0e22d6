// Turns a chunk of logits into its gradient in place: weight·(p − onehot(target)), or for KL rows
// weight·p·(log p − log q − KL), REVERSED weight·(p − q). Shapes as in vocab_state.wgsl. One invocation an element, in place.
@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) wg: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let c = wg.x * 64u + lane;
  let row = wg.y;
  if (c >= p.cols) { return; }
  let at = row * p.cols + c;
  let lse = state[4u * row] + log(max(state[4u * row + 1u], 1e-37));
  let logP = logits[at] - lse;
  let prob = exp(logP);
  if (row >= p.klStart) {
    let kl = state[4u * row + 2u] / state[4u * row + 1u] - lse;
    let logQ = reference[(row - p.klStart) * p.vocab + p.first + c];
    logits[at] = weights[row] * select(prob * (logP - logQ - kl), prob - exp(logQ), REVERSED);
  } else {
    logits[at] = weights[row] * (prob - select(0.0, 1.0, targets[row] == p.first + c));
  }
}
