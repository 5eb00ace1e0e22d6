// y[r] = (k[r] · q[r]) g[r]; k and q [rows, inner], g and y [rows, outer]. One workgroup a row: a tree sums the
// product, then every invocation writes each WG-th element.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let r = wg.x;
  var sum = 0.0;
  for (var i = lane; i < p.inner; i += WG) { sum += k[r * p.inner + i] * q[r * p.inner + i]; }
  let c = reduce_sum(lane, sum);
  for (var o = lane; o < p.outer; o += WG) { y[r * p.outer + o] = c * g[r * p.outer + o]; }
}
