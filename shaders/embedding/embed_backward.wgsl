// dtable[tokens[k]] += Σ dy[rows[j]], j in [offsets[k], offsets[k+1]), for the tokens of this shard of the
// gradient, rows [first, first + count). dy [rows, width], dtable [count, width] f32. An invocation owns one
// column of one distinct token, so nothing is added twice at once; the order is that of `rows`. Entries with
// an empty range are padding.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let k = i / p.width;
  let c = i % p.width;
  let begin = offsets[k];
  let end = offsets[k + 1u];
  let token = tokens[k];
  if (begin == end || token < p.first || token - p.first >= p.count) { return; }
  var sum = 0.0;
  for (var j = begin; j < end; j++) { sum += dy[rows[j] * p.width + c]; }
  dtable[(token - p.first) * p.width + c] += sum;
}
