// d[r, column] = ‖φ(o + δ) − φ(o)‖, o = y − residual (RESIDUAL) or y; y, residual, delta [rows, width], d
// [rows, n]. One workgroup a row, an invocation takes every WG-th element; y and delta are read once.
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32, wg: Workgroup) {
  let r = row_of(wg);
  if (r >= p.rows) { return; }
  var sum = 0.0;
  for (var c = lane; c < p.width; c += WG) {
    let at = r * p.width + c;
    var o = y[at];
    if (RESIDUAL) { o -= residual[at]; }
    let difference = act(o + delta[at]) - act(o);
    sum += difference * difference;
  }
  let total = reduce_sum(lane, sum);
  if (lane == 0u) { d[r * p.n + p.column] = sqrt(total); }
}
