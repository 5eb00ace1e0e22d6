// w[r] = g[r] v[r]/‖v[r]‖; v and w [rows, width], g [rows] (Salimans and Kingma 2016). One workgroup a row.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let r0 = wg.x * p.width;
  var sum = 0.0;
  for (var i = lane; i < p.width; i += WG) { sum += v[r0 + i] * v[r0 + i]; }
  let factor = g[wg.x] / sqrt(max(reduce_sum(lane, sum), 1e-30));
  for (var i = lane; i < p.width; i += WG) { w[r0 + i] = factor * v[r0 + i]; }
}
