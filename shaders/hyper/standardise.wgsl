// h[row + r, first + c] = clamp((x[r, c] − m[c])/(s[c] + 1e-7), ±limit), s = √(S/(k − 1)), and 0 in rows that are not
// kept; x [rows, width], h [*, ld]. One invocation an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let r = i / p.width;
  let c = i % p.width;
  var y = 0.0;
  if (keep[r] != 0u) {
    let deviation = sqrt(scatter[c] / (f32(count[0]) - 1.0));
    y = clamp((x[i] - mean[c]) / (deviation + 1e-7), -p.limit, p.limit);
  }
  h[(p.row + r) * p.ld + p.first + c] = y;
}
