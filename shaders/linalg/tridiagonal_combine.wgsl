// The current matrix times the newest reflector v = V[t], whose updates by this block are still to come:
//   W[t, i] = Σ_T parts[T, i] - Σ_{s < t} (V[s, i] dots[s] + W[s, i] dots[64 + s]),  zero for i ≤ j
//   parts [tiles, ld] from tridiagonal_product.wgsl;  v, w [64, ld];  dots [128]
// One invocation an element i; terms in a fixed order.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  begin();
  let i = id.x;
  if (i >= p.ld) { return; }
  var sum = number(0.0);
  if (i > p.j) {
    for (var tile = p.tileBegin; tile < p.ld / 64u; tile++) { sum = plus(sum, parts[tile * p.ld + i]); }
    for (var s = 0u; s < p.t; s++) {
      let at = s * p.ld + i;
      sum = mac(sum, v[at], -dots[s]);
      sum = mac(sum, w[at], -dots[64u + s]);
    }
  }
  w[p.t * p.ld + i] = sum;
}
