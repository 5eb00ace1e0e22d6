// sums[offset + w] = Σ x² over the elements of workgroup w: w·WG + lane, then every (workgroups·WG)-th.
// n elements of x, read once. The grid is one-dimensional and fixed by n, so the order of sums is too.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = wg.x * WG + lane; i < p.n; i += grid.x * WG) { sum += x[i] * x[i]; }
  let total = reduce_sum(lane, sum);
  if (lane == 0u) { sums[p.offset + wg.x] = total; }
}
