// The products of earlier reflectors of a block with the newest, v = V[t]:
//   dots[s] = Σ_i W[s, i] v[i],  dots[64 + s] = Σ_i V[s, i] v[i],  s < t
//   v, w [64, ld];  dots [128]
// One workgroup a dot, numbered 2s and 2s + 1: 64 invocations taking turns, halved in workgroup memory.
var<workgroup> sums: array<num, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  begin();
  let s = wg.x / 2u;
  let own = wg.x % 2u == 1u;
  var sum = number(0.0);
  for (var i = p.begin + lane; i < p.ld; i += 64u) {
    var x = number(0.0);
    if (own) { x = v[s * p.ld + i]; } else { x = w[s * p.ld + i]; }
    sum = mac(sum, x, v[p.t * p.ld + i]);
  }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] = plus(sums[lane], sums[lane + half]); }
    workgroupBarrier();
  }
  if (lane == 0u) { dots[select(s, 64u + s, own)] = sums[0]; }
}
