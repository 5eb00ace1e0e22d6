// dw[c] (+)= Σ_r dy[r,c]·(x[r,c] − μ_r)·rstd_r; x, dy [rows, width], stats [rows, 2], dw [width].
// An invocation sums one column over all rows, in order: no atomics, the same bits every time.
// Neighbouring invocations read neighbouring columns. x and dy are read once.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.width) { return; }
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    let at = r * p.width + c;
    sum += dy[at] * (x[at] - stats[2u * r]) * stats[2u * r + 1u];
  }
  if (ACC) { sum += dw[c]; }
  dw[c] = sum;
}
