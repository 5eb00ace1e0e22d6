// d[s, j] = ‖x[index[s]] − keys[j]‖; x [·, width], keys [n, width], index [count], d [count, n]. One workgroup a
// pair, an invocation takes every WG-th element: a query is read once a key. Sums in a fixed order, so that equal
// rows have equal distances whatever batch they come in.
@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32, wg: Workgroup) {
  let pair = row_of(wg);
  if (pair >= p.rows) { return; }
  let query = index[pair / p.n] * p.width;
  let key = (pair % p.n) * p.width;
  var sum = 0.0;
  for (var c = lane; c < p.width; c += WG) {
    let difference = x[query + c] - keys[key + c];
    sum += difference * difference;
  }
  let total = reduce_sum(lane, sum);
  if (lane == 0u) { d[pair] = sqrt(total); }
}
