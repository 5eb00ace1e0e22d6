// Where loss[r] < best[r]: best[r] = loss[r] and kept[r] = x[r]; x, kept [rows, width]. One workgroup a row.
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32, wg: Workgroup) {
  let r = row_of(wg);
  if (r >= p.rows) { return; }
  // All invocations read before one of them writes.
  let better = reduce_sum(lane, select(0.0, 1.0, loss[r] < best[r])) > 0.0;
  if (!better) { return; }
  for (var c = lane; c < p.width; c += WG) { kept[r * p.width + c] = x[r * p.width + c]; }
  if (lane == 0u) { best[r] = loss[r]; }
}
