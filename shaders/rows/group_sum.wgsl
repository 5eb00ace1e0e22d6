// y[g] (+)= Σ_{i: group[i] = g} weight[i]·x[index[i]]; y [groups, width], x [rows, width], index, group,
// weight [count]. INDEXED false takes x[i], WEIGHTED false takes weight 1. An invocation owns one element of
// y and walks through all i in order: groups need not be sorted, and the bits are the same every time.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let e = (wg.y * grid.x + wg.x) * 64u + lane;
  if (e >= p.n) { return; }
  let g = e / p.width;
  let c = e % p.width;
  var sum = 0.0;
  for (var i = 0u; i < p.count; i++) {
    if (group[i] == g) {
      var row = i;
      if (INDEXED) { row = index[i]; }
      var v = x[row * p.width + c];
      if (WEIGHTED) { v *= weight[i]; }
      sum += v;
    }
  }
  if (ACC) { sum += y[e]; }
  y[e] = sum;
}
