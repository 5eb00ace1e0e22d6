// The second factor of the rank-two update A -= v wᵀ + w vᵀ (LAPACK's dlatrd): with p = A v,
//   w = τ p - ½ τ² (pᵀv) v
//   v, w [64, ld], row t: w holds p and becomes w;  scalars [3, ld]: τ of column j in row 2
// One workgroup of 256 invocations taking turns; the dot is halved in workgroup memory, in a fixed order.
var<workgroup> sums: array<num, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
  begin();
  let line = p.t * p.ld;
  var sum = number(0.0);
  for (var i = p.j / 256u * 256u + lane; i < p.ld; i += 256u) { sum = mac(sum, w[line + i], v[line + i]); }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = 128u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] = plus(sums[lane], sums[lane + half]); }
    workgroupBarrier();
  }
  let tau = scalars[2u * p.ld + p.j];
  let share = times(times(times(tau, tau), number(-0.5)), sums[0]);
  for (var i = p.j / 256u * 256u + lane; i < p.ld; i += 256u) {
    w[line + i] = mac(times(tau, w[line + i]), share, v[line + i]);
  }
}
