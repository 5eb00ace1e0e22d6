// δ[e] ← δ[e]·r[e]/‖δ[e]‖ where ‖δ[e]‖ > r[e]; delta [E, width], radius [E]. One workgroup a row e; a row
// inside its ball keeps its bits. ROWS: row e is left alone unless rows_on is set for it.
@compute @workgroup_size(WG)
fn main(wg: Workgroup, @builtin(local_invocation_index) lane: u32) {
  let row = row_of(wg);
  if (row >= p.rows) { return; }
  let norm = row_norm(lane, row);
  var outside = norm > radius[row];
  if (ROWS) { outside = outside && rows_on[row] != 0u; }
  if (outside) {
    let shrink = radius[row] / norm;
    let start = row * p.width;
    for (var c = lane; c < p.width; c += WG) { delta[start + c] *= shrink; }
  }
}
