// choice[s] = the j of the smallest d[s, j], the lowest among equals, if it is at most radius[j]; else no entry,
// 0xffffffff. d [count, n], radius [n], choice [count]. An invocation walks through one row.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let s = id.x;
  if (s >= p.count) { return; }
  var best = 0u;
  for (var j = 1u; j < p.n; j++) {
    if (d[s * p.n + j] < d[s * p.n + best]) { best = j; }
  }
  choice[s] = select(0xffffffffu, best, d[s * p.n + best] <= radius[best]);
}
