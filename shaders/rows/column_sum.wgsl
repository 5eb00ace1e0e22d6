// y[c] (+)= Σ_r x[r,c]; x [rows, width], y [width]. An invocation sums one column, rows in order: no
// atomics, the same bits every time. Neighbours read neighbouring columns; x is read once.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.width) { return; }
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) { sum += x[r * p.width + c]; }
  if (ACC) { sum += y[c]; }
  y[c] = sum;
}
