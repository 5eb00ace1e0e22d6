// loss[e] += c[e]·‖δ[e]‖ and grad[e] += c[e]·δ[e]/‖δ[e]‖, which is 0 at δ = 0. delta, grad [E, width];
// c, loss [E]. One workgroup a row e; delta is read twice, grad updated once.
@compute @workgroup_size(WG)
fn main(wg: Workgroup, @builtin(local_invocation_index) lane: u32) {
  let row = row_of(wg);
  if (row >= p.rows) { return; }
  let norm = row_norm(lane, row);
  if (lane == 0u) { loss[row] += coefficient[row] * norm; }
  // The bound is far below any norm that f32 squares can hold: it only replaces 0/0 by 0.
  let slope = coefficient[row] / max(norm, 1e-30);
  let start = row * p.width;
  for (var c = lane; c < p.width; c += WG) { grad[start + c] += slope * delta[start + c]; }
}
