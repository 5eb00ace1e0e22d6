// Copies rows of a symmetric matrix into a row panel of its lower triangle:
//   panel[i, j] = s_i s_j (C + lo)[i, j]
//   src: rows [srcRow, …) of C, srcLd apart, and lo its low words when LO;  scale [n], diagonal [n]
// The diagonal comes from `diagonal`, which the host has shifted and scaled. One invocation an element of
// rows [rowBegin, rowEnd) × columns [0, panelLd); those above the diagonal are left alone.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = p.rowBegin + id.y;
  let col = id.x;
  if (row >= p.rowEnd || col > row) { return; }
  let at = (row - p.panelRow) * p.panelLd + col;
  if (col == row) {
    panel[at] = diagonal[row];
  } else if (row < p.n) {
    let word = (row - p.srcRow) * p.srcLd + col;
    var v = real(src[word]);
    if (LO) { v += real(lo[word]); }
    panel[at] = v * real(scale[row] * scale[col]);
  } else {
    panel[at] = real(0);
  }
}
