// C of matmul_subgroup at any address. BIAS, RESIDUAL, ACCUMULATE are variants.
const STORED: u32 = 1u;

// Four neighbours of the product in a row of C.
fn store(row: u32, col: u32, value: vec4<f32>) {
  store1(row, col, value.x);
  store1(row, col + 1u, value.y);
  store1(row, col + 2u, value.z);
  store1(row, col + 3u, value.w);
}

fn store1(row: u32, col: u32, value: f32) {
  if (row < p.M && col < p.N) {
    let at = p.cOffset + row * p.ldc + col;
    if (ACCUMULATE) { c[at] += value * p.alpha; } else { c[at] = value * p.alpha; }
  }
}

// What is added to one of them afterwards.
fn finish(row: u32, col: u32) {
  let at = p.cOffset + row * p.ldc + col;
  var v = c[at];
  if (BIAS) { v += bias[p.biasOffset + col]; }
  if (RESIDUAL) { v += residual[at]; }
  c[at] = v;
}
