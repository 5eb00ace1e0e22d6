// Is f64 real? (1 + 2^-40) - 1 is 2^-40 in f64 and 0 in f32; sqrt(2) - 1.4142135 is 6.2373095e-8. One invocation.
@compute @workgroup_size(1)
fn main() {
  let tiny = f64(a[0]);
  let s = (1.0lf + tiny) - 1.0lf;
  y[0] = f32(s / tiny);
  y[1] = f32(sqrt(f64(a[1])) - 1.4142135lf);
}
