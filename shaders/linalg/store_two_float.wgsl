// Epilogue of the second moment: the two-float number (c, lo) += AᵀA.
fn store(row: u32, col: u32, v: f32) {
  if (row < p.rowEnd && col < p.colEnd) {
    zero_bits = zero[0];
    let at = (row - p.panelRow) * p.panelLd + col;
    let sum = acc_add(vec2<f32>(c[at], lo[at]), v);
    c[at] = sum.x;
    lo[at] = sum.y;
  }
}
