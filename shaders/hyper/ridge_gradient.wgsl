// y[at] += −e^λ Σ a ⊙ b with λ = lambda[at]; a and b of n elements. One workgroup.
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < p.n; i += WG) { sum += a[i] * b[i]; }
  let total = reduce_sum(lane, sum);
  if (lane == 0u) { y[p.at] -= exp(lambda[p.at]) * total; }
}
