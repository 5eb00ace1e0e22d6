// Finishes the running state without a loss: logProbs[i] = log p(target), best[i] = the likeliest token.
//   state [n, 4] as in vocab_state.wgsl, no KL rows; logProbs f32 [n], best u32 [n]. One invocation a row.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= p.rows) { return; }
  let lse = state[4u * row] + log(max(state[4u * row + 1u], 1e-37));
  logProbs[row] = state[4u * row + 2u] - lse;
  best[row] = u32(state[4u * row + 3u]);
}
