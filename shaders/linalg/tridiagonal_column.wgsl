// The next column of a Householder reduction: y[i] = A[i, j] - Σ_{s < t} (V[s, i] W[s, j] + W[s, i] V[s, j]).
//   a: rows [rowBegin, rowEnd) of the lower triangle, as it was before this block of columns
//   v, w [64, ld]: the block's reflectors so far and their products, row s for column j - t + s;  y [ld]
// One invocation an element i; 4 loads a step, of which two are the same for all invocations.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  begin();
  let i = p.rowBegin + id.x;
  if (i >= p.rowEnd) { return; }
  var sum = number(0.0);
  for (var s = 0u; s < p.t; s++) {
    let at = s * p.ld;
    sum = mac(sum, v[at + i], w[at + p.j]);
    sum = mac(sum, w[at + i], v[at + p.j]);
  }
  y[i] = plus(a[(i - p.panelRow) * p.panelLd + p.j], -sum);
}
