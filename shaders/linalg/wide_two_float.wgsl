// The numbers of the wide kernels where the device has no f64: unevaluated sums of two f32, 48 bits or so.
// Double-float arithmetic after Dekker (1971) and Joldes, Muller & Popescu (2017), on the error-free
// transformations of eft.wgsl; a result is off by a few 2⁻⁴⁶ of the largest term. Same functions as
// wide_f64.wgsl. `begin` comes first in every kernel.
alias num = vec2<f32>;

fn begin() { zero_bits = zero[0]; }
fn number(x: f32) -> num { return num(x, 0.0); }
fn leading(a: num) -> f32 { return a.x; }

// h + l as a two-float number, |h| ≥ |l|.
fn normal(h: f32, l: f32) -> num {
  let s = opaque(h + l);
  return num(s, opaque(l - opaque(s - h)));
}

fn plus(a: num, b: num) -> num {
  let s = two_sum(a.x, b.x);
  return normal(s.x, opaque(s.y + opaque(a.y + b.y)));
}

fn times(a: num, b: num) -> num {
  let h = two_prod(a.x, b.x);
  return normal(h.x, opaque(h.y + opaque(a.x * b.y + a.y * b.x)));
}

// s + a b
fn mac(s: num, a: num, b: num) -> num {
  let h = two_prod(a.x, b.x);
  let t = two_sum(s.x, h.x);
  let low = opaque(h.y + opaque(a.x * b.y + a.y * b.x));
  return normal(t.x, opaque(opaque(t.y + s.y) + low));
}

fn quotient(a: num, b: num) -> num {
  let q = opaque(a.x / b.x);
  let rest = mac(a, num(-q, 0.0), b);
  return normal(q, opaque(rest.x / b.x));
}

fn root(a: num) -> num {
  if (!(a.x > 0.0)) { return num(0.0); }
  let q = opaque(sqrt(a.x));
  let rest = mac(a, num(-q, 0.0), num(q, 0.0));
  return normal(q, opaque(rest.x / opaque(2.0 * q)));
}
