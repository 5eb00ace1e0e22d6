// Y -= A X in f64, A a rectangle with any strides: with them swapped, Y -= Aᵀ X.
//   A(i, k) at i·rowStride + k·stepStride, i < count, k < K;  x rows from xFirst, y rows from yFirst, [·, m]
// The sum starts from y, so that b − A x rounds no product that b has not met. One invocation an element of
// Y; neighbours take neighbouring right-hand sides, then rows. The grid is folded.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) id: u32) {
  let t = (wg.y * grid.x + wg.x) * 64u + id;
  let i = t / p.m;
  let col = t % p.m;
  if (i >= p.count) { return; }
  let out = (p.yFirst + i) * p.m + col;
  var sum = y[out];
  for (var k = 0u; k < p.K; k++) {
    sum -= a[i * p.rowStride + k * p.stepStride] * x[(p.xFirst + k) * p.m + col];
  }
  y[out] = sum;
}
