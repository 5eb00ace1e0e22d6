// C of matmul_subgroup when all addresses are multiples of four. BIAS, RESIDUAL, ACCUMULATE are variants.
const STORED: u32 = 4u;

// Four neighbours of the product in a row of C.
fn store(row: u32, col: u32, value: vec4<f32>) {
  if (row < p.M && col < p.N) {
    let at = (p.cOffset + row * p.ldc + col) / 4u;
    if (ACCUMULATE) { c[at] += value * p.alpha; } else { c[at] = value * p.alpha; }
  }
}

// What is added to them afterwards.
fn finish(row: u32, col: u32) {
  let at = (p.cOffset + row * p.ldc + col) / 4u;
  var v = c[at];
  if (BIAS) { v += bias[(p.biasOffset + col) / 4u]; }
  if (RESIDUAL) { v += residual[at]; }
  c[at] = v;
}
