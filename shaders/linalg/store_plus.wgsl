// Epilogue of a Gram matrix in one precision: C += AᵀA.
fn store(row: u32, col: u32, v: real) {
  if (row < p.rowEnd && col < p.colEnd) {
    let at = (row - p.panelRow) * p.panelLd + col;
    c[at] = c[at] + v;
  }
}
