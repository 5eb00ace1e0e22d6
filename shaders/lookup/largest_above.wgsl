// choice[s] = the j of the largest score[s, j] among those of at least threshold[j], the lowest among equals; no
// entry, 0xffffffff, where there is none. score [count, n]. An invocation walks through one row.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let s = id.x;
  if (s >= p.count) { return; }
  var best = 0xffffffffu;
  var top = 0.0;
  for (var j = 0u; j < p.n; j++) {
    let v = score[s * p.n + j];
    if (v >= threshold[j] && (best == 0xffffffffu || v > top)) {
      best = j;
      top = v;
    }
  }
  choice[s] = best;
}
