// y[at] += alpha · Σ over kept rows r and columns c of a[r, c] · b[r, c]; a and b [rows, width]. One workgroup: each
// invocation sums every WG-th element, then a tree adds them, always in the same order.
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < p.n; i += WG) {
    if (keep[i / p.width] != 0u) { sum += a[i] * b[i]; }
  }
  let total = reduce_sum(lane, sum);
  if (lane == 0u) { y[p.at] += p.alpha * total; }
}
