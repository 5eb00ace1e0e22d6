// δ[e] ← δ[e]·r[e]/‖δ[e]‖ where ‖δ[e]‖ > r[e]; delta [E, width], radius [E]. One workgroup a row e; a row
// inside its ball keeps its bits. ROWS: row e is left alone unless rows_on is set for it.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let row = wg.y * grid.x + wg.x;
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var sum = 0.0;
  for (var c = lane; c < p.width; c += WG) { sum += delta[start + c] * delta[start + c]; }
  let norm = sqrt(reduce_sum(lane, sum));
  var outside = norm > radius[row];
  if (ROWS) { outside = outside && rows_on[row] != 0u; }
  if (outside) {
    let shrink = radius[row] / norm;
    for (var c = lane; c < p.width; c += WG) { delta[start + c] *= shrink; }
  }
}
