// Adafactor's column moments: C[j] ← β C[j] + (1 − β)(mean_i g[i,j]² + eps), β = 1 − t^−decay, t the clock. grad
// [rows, width], C [width]. An invocation takes one column, rows in order; grad is read once.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.width) { return; }
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    let g = grad[r * p.width + c];
    sum += g * g;
  }
  let keep = kept_moment(step[0], p.decay);
  columns[c] = keep * columns[c] + (1.0 - keep) * (sum / f32(p.rows) + p.eps);
}
