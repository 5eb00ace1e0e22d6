// Takes kept rows of x [rows, width] into running moments of each column: with n rows of mean μ and scatter Q,
// d = μ − m, and k rows before,
//   S ← S + Q + d²·k·n/(k + n);  m ← m + d·n/(k + n)
// as one row after the other would (Chan et al. 1983). One invocation a column, rows in order; the count is
// left for count_rows, since others read it too.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.width) { return; }
  var n = 0.0;
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    if (keep[r] != 0u) {
      n += 1.0;
      sum += x[r * p.width + c];
    }
  }
  if (n == 0.0) { return; }
  let mu = sum / n;
  var q = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    if (keep[r] != 0u) {
      let e = x[r * p.width + c] - mu;
      q += e * e;
    }
  }
  let k = f32(count[0]);
  let d = mu - mean[c];
  scatter[c] += q + d * d * (k * (n / (k + n)));
  mean[c] += d * (n / (k + n));
}
