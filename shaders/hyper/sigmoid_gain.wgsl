// y[r] = alpha σ(e[r]) x[r]; x and y [rows, width], e [rows]. BACK, with dy: y is dx, and de[r] = alpha σ(1 − σ) Σ dy ⊙ x.
// One workgroup a row.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let r0 = wg.x * p.width;
  let s = sigmoid(e[wg.x]);
  if (BACK) {
    var dot = 0.0;
    for (var i = lane; i < p.width; i += WG) {
      dot += dy[r0 + i] * x[r0 + i];
      y[r0 + i] = p.alpha * s * dy[r0 + i];
    }
    let total = reduce_sum(lane, dot);
    if (lane == 0u) { de[wg.x] = p.alpha * s * (1.0 - s) * total; }
  } else {
    for (var i = lane; i < p.width; i += WG) { y[r0 + i] = p.alpha * s * x[r0 + i]; }
    if (lane == 0u) { de[wg.x] = 0.0; }
  }
}
