// score[s, j] = the mean of d[r, j] over the rows of s's two spans (first, count each), or their maximum where
// they are more than p.most; d [rows, n], spans [count, 4], score [count, n]. An invocation walks through the
// rows of one score.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.count * p.n) { return; }
  let s = id.x / p.n;
  let j = id.x % p.n;
  var sum = 0.0;
  var top = 0.0;
  for (var run = 0u; run < 2u; run++) {
    let first = spans[s * 4u + run * 2u];
    let end = first + spans[s * 4u + run * 2u + 1u];
    for (var r = first; r < end; r++) {
      sum += d[r * p.n + j];
      top = max(top, d[r * p.n + j]);
    }
  }
  let rows = spans[s * 4u + 1u] + spans[s * 4u + 3u];
  score[id.x] = select(sum / f32(max(rows, 1u)), top, rows > p.most);
}
