// The numbers of the wide kernels where the device has f64. Same functions as wide_two_float.wgsl.
alias num = f64;

fn begin() {}
fn number(x: f32) -> num { return num(x); }
fn leading(a: num) -> f32 { return f32(a); }
fn plus(a: num, b: num) -> num { return a + b; }
fn times(a: num, b: num) -> num { return a * b; }
fn quotient(a: num, b: num) -> num { return a / b; }
fn root(a: num) -> num { return sqrt(a); }

// s + a b
fn mac(s: num, a: num, b: num) -> num { return s + a * b; }
