// y = (x − μ)·rstd·w (+ b), row by row; x, y [rows, width], w, b [width], stats [rows, 2] = (μ, rstd).
//   CENTER (layer norm):  μ = mean(x), rstd = 1/√(mean((x − μ)²) + eps)
//   otherwise (RMS norm): μ = 0,       rstd = 1/√(mean(x²) + eps)
// One workgroup a row; an invocation takes every WG-th element. Statistics in two passes: x is read three
// times (twice without CENTER), from cache after the first; y is written once.
@compute @workgroup_size(WG)
fn main(wg: Workgroup, @builtin(local_invocation_index) lane: u32) {
  let row = row_of(wg);
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var mean = 0.0;
  if (CENTER) {
    var sum = 0.0;
    for (var c = lane; c < p.width; c += WG) { sum += x[start + c]; }
    mean = row_mean(lane, sum);
  }
  var squares = 0.0;
  for (var c = lane; c < p.width; c += WG) {
    let d = x[start + c] - mean;
    squares += d * d;
  }
  let rstd = 1.0 / sqrt(row_mean(lane, squares) + p.eps);
  if (lane == 0u) {
    stats[2u * row] = mean;
    stats[2u * row + 1u] = rstd;
  }
  for (var c = lane; c < p.width; c += WG) {
    var v = (x[start + c] - mean) * rstd * weight[c];
    if (BIAS) { v += bias[c]; }
    y[start + c] = v;
  }
}
