// What happens to a finished element of C. BIAS, RESIDUAL and ACCUMULATE are variants.
fn store_c(row: u32, col: u32, value: f32) {
  if (row < p.M && col < p.N) {
    let at = p.cOffset + row * p.ldc + col;
    var v = value * p.alpha;
    if (BIAS) { v += bias[p.biasOffset + col]; }
    if (RESIDUAL) { v += residual[at]; }
    if (ACCUMULATE) { v += c[at]; }
    c[at] = v;
  }
}
