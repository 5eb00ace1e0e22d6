// The reflector of one column: H = I - τ v vᵀ takes y[j + 1…] to e times the first unit vector, v[j + 1] = 1.
//   y [ld]: the column from j on;  v [64, ld]: row t receives v, zero up to j
//   scalars [3, ld]: row 0 receives the diagonal y[j], row 1 e, row 2 τ (zero where there is nothing to do)
// LAPACK's dlarfg: e = -sign(α)·‖y[j + 1…]‖, τ = (e - α)/e, v = y / (α - e). One workgroup, 256 invocations
// taking turns; sums of squares are halved in workgroup memory, in a fixed order.
var<workgroup> sums: array<num, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
  begin();
  var sum = number(0.0);
  for (var i = p.j / 256u * 256u + lane; i < p.n; i += 256u) {
    if (i > p.j + 1u) { sum = mac(sum, y[i], y[i]); }
  }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = 128u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] = plus(sums[lane], sums[lane + half]); }
    workgroupBarrier();
  }
  let below = sums[0];
  var alpha = number(0.0);
  if (p.j + 1u < p.n) { alpha = y[p.j + 1u]; }
  let flat = !(leading(below) > 0.0);
  var e = alpha;
  var tau = number(0.0);
  var inverse = number(0.0);
  if (!flat) {
    e = root(mac(below, alpha, alpha));
    if (leading(alpha) > 0.0) { e = -e; }
    let step = plus(alpha, -e);
    tau = quotient(-step, e);
    inverse = quotient(number(1.0), step);
  }
  for (var i = lane; i < p.ld; i += 256u) {
    var x = number(0.0);
    if (!flat && i > p.j && i < p.n) {
      if (i == p.j + 1u) { x = number(1.0); } else { x = times(y[i], inverse); }
    }
    v[p.t * p.ld + i] = x;
  }
  if (lane == 0u) {
    scalars[p.j] = y[p.j];
    scalars[p.ld + p.j] = e;
    scalars[2u * p.ld + p.j] = tau;
  }
}
