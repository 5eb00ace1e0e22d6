// Numerics probe: what this device and its compiler do with floating point. One invocation.
//   input  a[0..1] the sum's operands, a[2..3] the product's, a[4] zero, a[5] a NaN, a[6..69] a dot's terms
//   output y[0..1] TwoSum, y[2..3] TwoProd, y[4] fma(a,b,-ab), y[5] NaN test by comparison,
//          y[6] NaN test by bits, y[7] the 64-term dot
@compute @workgroup_size(1)
fn main() {
  zero_bits = bitcast<u32>(a[4]);
  let s = two_sum(a[0], a[1]);
  y[0] = s.x;
  y[1] = s.y;
  let m = two_prod(a[2], a[3]);
  y[2] = m.x;
  y[3] = m.y;
  y[4] = fma(a[2], a[3], -(a[2] * a[3]));
  y[5] = select(0.0, 1.0, a[5] != a[5]);
  y[6] = select(0.0, 1.0, (bitcast<u32>(a[5]) & 0x7fffffffu) > 0x7f800000u);
  var dot = 0.0;
  for (var i = 0u; i < p.terms; i++) { dot += a[6u + i] * a[6u + i]; }
  y[7] = dot;
}
