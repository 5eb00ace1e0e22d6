// Y = C X with two-float numbers, C symmetric and stored as row panels of its lower triangle.
//   c, lo: a panel of C and its low words (LO);  x, y [n, m] of (hi, lo) pairs
//   MIRROR = false: y[i] = Σ_{k ≤ i} C[i, k] x[k] for the panel's rows i
//   MIRROR = true:  y[i] += Σ_{k > i} C[k, i] x[k] over the panel's rows k, for columns i < rowEnd
// One invocation computes one element as a compensated dot: the high product is split exactly (TwoProd) and
// added to a two-float sum, its error and the cross terms go to a plain f32 sum that is 2⁻²⁴ smaller.
// Neighbouring invocations take neighbouring right-hand sides, then rows.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let col = id.x % p.m;
  let i = p.rowBegin + id.x / p.m;
  if (i >= p.rowEnd) { return; }
  zero_bits = zero[0];
  var first = 0u;
  var end = i + 1u;
  var start = (i - p.panelRow) * p.panelLd;
  var step = 1u;
  if (MIRROR) {
    first = max(p.panelRow, i + 1u);
    end = p.panelEnd;
    start = i;
    step = p.panelLd;
  }
  let origin = select(0u, p.panelRow, MIRROR);
  var sum = vec2<f32>(0.0);
  var small = 0.0;
  for (var k = first; k < end; k++) {
    let at = start + (k - origin) * step;
    let v = x[k * p.m + col];
    let product = two_prod(c[at], v.x);
    sum = acc_add(sum, product.x);
    small += product.y + c[at] * v.y;
    if (LO) { small += lo[at] * v.x; }
  }
  let out = i * p.m + col;
  if (MIRROR) {
    sum = acc_add(sum, y[out].x);
    small += y[out].y;
  }
  y[out] = acc_add(sum, small);
}
