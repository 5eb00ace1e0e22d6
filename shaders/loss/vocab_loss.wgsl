// Finishes the running state: loss[r] = weight[r] · (−log p(target)) or weight[r] · KL for KL rows:
// KL(p‖q), or REVERSED KL(q‖p).
//   state as in vocab_state.wgsl. One invocation a row.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= p.rows) { return; }
  let lse = state[4u * row] + log(max(state[4u * row + 1u], 1e-37));
  var value = lse - state[4u * row + 2u];
  if (row >= p.klStart) {
    let s2 = state[4u * row + 2u];
    value = select(s2 / state[4u * row + 1u] - lse, s2 + lse, REVERSED);
  }
  loss[row] = weights[row] * value;
}
