// Adafactor's row moments R[i], by the rule of the columns', and share[i] = Σ_j g[i,j]²/C[j] / R[i] with the new
// moments. grad [rows, width], C [width], R and share [rows]. One workgroup a row; grad is read once.
@compute @workgroup_size(WG)
fn main(wg: Workgroup, @builtin(local_invocation_index) lane: u32) {
  let row = row_of(wg);
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var sum = 0.0;
  var scaled = 0.0;
  for (var c = lane; c < p.width; c += WG) {
    let g = grad[start + c];
    sum += g * g;
    scaled += g * g / columns[c];
  }
  let mean = row_mean(lane, sum);
  let all = reduce_sum(lane, scaled);
  if (lane > 0u) { return; }
  let keep = kept_moment(step[0], p.decay);
  let moment = keep * moments[row] + (1.0 - keep) * (mean + p.eps);
  moments[row] = moment;
  share[row] = all / moment;
}
