// y[r] = softmax(x[r]); BACK, with x the softmax itself: y = x ⊙ (dy − Σ dy ⊙ x). x [rows, width]. One workgroup a row.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let r0 = wg.x * p.width;
  if (BACK) {
    var dot = 0.0;
    for (var i = lane; i < p.width; i += WG) { dot += dy[r0 + i] * x[r0 + i]; }
    let total = reduce_sum(lane, dot);
    for (var i = lane; i < p.width; i += WG) { y[r0 + i] = x[r0 + i] * (dy[r0 + i] - total); }
  } else {
    // Every invocation finds the maximum: rows are short, and it is the same for all.
    var top = x[r0];
    for (var i = 1u; i < p.width; i++) { top = max(top, x[r0 + i]); }
    var sum = 0.0;
    for (var i = lane; i < p.width; i += WG) { sum += exp(x[r0 + i] - top); }
    let total = reduce_sum(lane, sum);
    for (var i = lane; i < p.width; i += WG) { y[r0 + i] = exp(x[r0 + i] - top) / total; }
  }
}
