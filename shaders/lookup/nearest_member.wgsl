// choice[s] = the nearest member of the nearest cluster, where that one's centre is within its radius; else no entry,
// 0xffffffff. Entries j are members: to_center, to_key [count, n] are the distances of prompt s to the centre of j's
// cluster and to j itself, radius [n] that of the cluster, cluster [n] its first member. The lowest among equals.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let s = id.x;
  if (s >= p.count) { return; }
  var near = 0u;
  for (var j = 1u; j < p.n; j++) {
    if (to_center[s * p.n + j] < to_center[s * p.n + near]) { near = j; }
  }
  var best = near;
  for (var j = 0u; j < p.n; j++) {
    if (cluster[j] == cluster[near] && to_key[s * p.n + j] < to_key[s * p.n + best]) { best = j; }
  }
  choice[s] = select(0xffffffffu, best, to_center[s * p.n + near] <= radius[near]);
}
