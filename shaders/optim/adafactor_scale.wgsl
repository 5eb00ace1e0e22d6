// What Adafactor's update is multiplied with. With M = mean_i R[i] the update is u = g·√M / √(R[i] C[j]), and its
// mean square is M·Σ share / (rows·width): scale = lr·√M / max(1, RMS(u)/clip). One workgroup.
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  var shares = 0.0;
  for (var r = lane; r < p.rows; r += WG) {
    sum += moments[r];
    shares += share[r];
  }
  let mean = reduce_sum(lane, sum) / f32(p.rows);
  let square = mean * reduce_sum(lane, shares) / (f32(p.rows) * f32(p.width));
  if (lane == 0u) { scale[0] = p.lr * sqrt(mean) / max(1.0, sqrt(square) / p.clip); }
}
