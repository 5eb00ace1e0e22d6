// Backward of keyed_rows to q and g:  dg[r] = (k[r] · q[r]) dy[r];  dq[r] = (dy[r] · g[r]) k[r]. One workgroup a row.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let r = wg.x;
  var sum = 0.0;
  for (var i = lane; i < p.inner; i += WG) { sum += k[r * p.inner + i] * q[r * p.inner + i]; }
  let c = reduce_sum(lane, sum);
  sum = 0.0;
  for (var o = lane; o < p.outer; o += WG) {
    sum += dy[r * p.outer + o] * g[r * p.outer + o];
    dg[r * p.outer + o] = c * dy[r * p.outer + o];
  }
  let dc = reduce_sum(lane, sum);
  for (var i = lane; i < p.inner; i += WG) { dq[r * p.inner + i] = dc * k[r * p.inner + i]; }
}
