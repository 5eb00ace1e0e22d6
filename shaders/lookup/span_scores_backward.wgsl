// dd[r, j] (+)= dscore[s, j]/(rows of s) for the rows r of s's first span, s = sequence[r], else 0: backward of
// span_scores where every score is a mean over one span. One invocation an element of dd [rows, n].
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.rows * p.n) { return; }
  let r = id.x / p.n;
  let s = sequence[r];
  let first = spans[s * 4u];
  let count = spans[s * 4u + 1u];
  let inside = r >= first && r < first + count;
  var v = select(0.0, dscore[s * p.n + id.x % p.n] / f32(max(count, 1u)), inside);
  if (ACC) { v += dd[id.x]; }
  dd[id.x] = v;
}
