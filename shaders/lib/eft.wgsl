// Error-free transformations. Every compiler on the way is treated as a fast-math compiler, so each
// intermediate passes through `opaque`: an xor with a zero that is read from storage, which no compiler
// can know. `zero_bits` must be set from a storage word before use. Products use Dekker's split, not fma.

var<private> zero_bits: u32;

fn opaque(v: f32) -> f32 { return bitcast<f32>(bitcast<u32>(v) ^ zero_bits); }

// a + b = s + e exactly (Knuth's TwoSum).
fn two_sum(a: f32, b: f32) -> vec2<f32> {
  let s = opaque(a + b);
  let bb = opaque(s - a);
  let e = opaque(a - opaque(s - bb)) + opaque(b - bb);
  return vec2<f32>(s, opaque(e));
}

// a * b = h + e exactly (Dekker).
fn two_prod(a: f32, b: f32) -> vec2<f32> {
  let h = opaque(a * b);
  let ca = opaque(4097.0 * a);
  let ah = opaque(ca - opaque(ca - a));
  let al = opaque(a - ah);
  let cb = opaque(4097.0 * b);
  let bh = opaque(cb - opaque(cb - b));
  let bl = opaque(b - bh);
  let e1 = opaque(opaque(ah * bh) - h);
  let e2 = opaque(e1 + opaque(ah * bl));
  let e3 = opaque(e2 + opaque(al * bh));
  return vec2<f32>(h, opaque(e3 + opaque(al * bl)));
}

// Adds x to the two-float number acc = (hi, lo).
fn acc_add(acc: vec2<f32>, x: f32) -> vec2<f32> {
  let s = two_sum(acc.x, x);
  let lo = opaque(acc.y + s.y);
  let t = opaque(s.x + lo);
  return vec2<f32>(t, opaque(lo - opaque(t - s.x)));
}
