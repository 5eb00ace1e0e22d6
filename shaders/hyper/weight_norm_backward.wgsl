// Backward of weight_norm:  dg = dw · v/‖v‖;  dv = g/‖v‖ (dw − (dw · v̂) v̂). One workgroup a row.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let r0 = wg.x * p.width;
  var square = 0.0;
  var dot = 0.0;
  for (var i = lane; i < p.width; i += WG) {
    square += v[r0 + i] * v[r0 + i];
    dot += dw[r0 + i] * v[r0 + i];
  }
  let inverse = 1.0 / sqrt(max(reduce_sum(lane, square), 1e-30));
  let along = reduce_sum(lane, dot) * inverse;
  if (lane == 0u) { dg[wg.x] = along; }
  let factor = g[wg.x] * inverse;
  for (var i = lane; i < p.width; i += WG) {
    dv[r0 + i] = factor * (dw[r0 + i] - along * inverse * v[r0 + i]);
  }
}
