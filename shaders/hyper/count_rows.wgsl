// count[0] += Σ keep: rows that the running moments have seen, a whole number (f32 would stop at 2²⁴). One
// invocation.
@compute @workgroup_size(1)
fn main() {
  var n = count[0];
  for (var r = 0u; r < p.rows; r++) { n += keep[r]; }
  count[0] = n;
}
