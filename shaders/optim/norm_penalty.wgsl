// loss[e] += c[e]·‖δ[e]‖ and grad[e] += c[e]·δ[e]/‖δ[e]‖, which is 0 at δ = 0. delta, grad [E, width];
// c, loss [E]. One workgroup a row e; delta is read twice, grad updated once.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let row = wg.y * grid.x + wg.x;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var sum = 0.0;
  for (var c = lane; c < p.width; c += WG) { sum += delta[start + c] * delta[start + c]; }
  let norm = sqrt(reduce_sum(lane, sum));
  if (lane == 0u) { loss[row] += coefficient[row] * norm; }
  // The bound is far below any norm that f32 squares can hold: it only replaces 0/0 by 0.
  let slope = coefficient[row] / max(norm, 1e-30);
  for (var c = lane; c < p.width; c += WG) { grad[start + c] += slope * delta[start + c]; }
}
