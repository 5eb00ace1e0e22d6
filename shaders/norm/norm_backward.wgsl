// dx (+)= rstd·(g − mean(g) − x̂·mean(g·x̂)), g = dy·w, x̂ = (x − μ)·rstd; the mean(g) only with CENTER.
// x, dy, dx [rows, width], w [width], stats [rows, 2] = (μ, rstd) from the forward kernel.
// One workgroup a row; an invocation takes every WG-th element. x and dy are read twice, dx written once.
@compute @workgroup_size(WG)
fn main(wg: Workgroup, @builtin(local_invocation_index) lane: u32) {
  let row = row_of(wg);
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let mean = stats[2u * row];
  let rstd = stats[2u * row + 1u];
  var sum = 0.0;
  var dot = 0.0;
  for (var c = lane; c < p.width; c += WG) {
    let g = dy[start + c] * weight[c];
    sum += g;
    dot += g * (x[start + c] - mean) * rstd;
  }
  let along = row_mean(lane, dot);
  var shift = 0.0;
  if (CENTER) { shift = row_mean(lane, sum); }
  for (var c = lane; c < p.width; c += WG) {
    let at = start + c;
    let hat = (x[at] - mean) * rstd;
    var v = rstd * (dy[at] * weight[c] - shift - hat * along);
    if (ACC) { v += dx[at]; }
    dx[at] = v;
  }
}
