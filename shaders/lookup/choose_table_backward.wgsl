// dtable[j] (+)= Σ dz[r] over the rows that fire with entry j; dtable [·, width], dz [rows, width]. An invocation
// owns one element of dtable and walks through the rows in order: the bits are the same every time.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let e = (wg.y * grid.x + wg.x) * 64u + lane;
  if (e >= p.n) { return; }
  let c = e % p.width;
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    if (choice[sequence[r]] == e / p.width && fires(r)) { sum += dz[r * p.width + c]; }
  }
  if (ACC) { sum += dtable[e]; }
  dtable[e] = sum;
}
