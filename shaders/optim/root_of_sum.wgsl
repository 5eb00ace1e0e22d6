// norm[0] = √Σ sums, n partial sums, one workgroup.
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < p.n; i += WG) { sum += sums[i]; }
  let total = reduce_sum(lane, sum);
  if (lane == 0u) { norm[0] = sqrt(total); }
}
