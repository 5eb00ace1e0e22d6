// Y -= A X in two-float numbers for devices without f64; the twin of subtract_product.wgsl.
//   a, lo: high words of A and, when LO, low words;  x, y [·, m] of (hi, lo) pairs
//   A(i, k) at i·rowStride + k·stepStride, i < count, k < K;  x rows from xFirst, y rows from yFirst
// A compensated dot as in symmetric_product.wgsl: high products are split exactly (TwoProd) and added to a
// two-float sum, their errors and the cross terms go to a plain f32 sum that is 2⁻²⁴ smaller. One invocation
// an element of Y; neighbours take neighbouring right-hand sides, then rows. The grid is folded.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) id: u32) {
  let t = (wg.y * grid.x + wg.x) * 64u + id;
  let i = t / p.m;
  let col = t % p.m;
  if (i >= p.count) { return; }
  zero_bits = zero[0];
  let out = (p.yFirst + i) * p.m + col;
  var sum = y[out];
  var small = 0.0;
  for (var k = 0u; k < p.K; k++) {
    let at = i * p.rowStride + k * p.stepStride;
    let v = x[(p.xFirst + k) * p.m + col];
    let product = two_prod(-a[at], v.x);
    sum = acc_add(sum, product.x);
    small += product.y - a[at] * v.y;
    if (LO) { small -= lo[at] * v.x; }
  }
  y[out] = acc_add(sum, small);
}
