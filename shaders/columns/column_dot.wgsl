// y[first + c] (+)= alpha · Σ_r a[r, c] · b[r, c]; a and b [rows, cols]. An invocation sums one column, rows in
// order: no atomics, the same bits every time. Neighbours read neighbouring columns; a and b are read once.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.cols) { return; }
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) { sum += a[r * p.cols + c] * b[r * p.cols + c]; }
  sum *= p.alpha;
  if (ACC) { sum += y[p.first + c]; }
  y[p.first + c] = sum;
}
