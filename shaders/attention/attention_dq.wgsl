// Backward of attention to the queries. With P = exp(scale·q·k − lse), D = dO·O, dS = P (dO·v − D) scale:
//   dq = Σ_j dS_j k_j
//   shapes as in attention.wgsl; D goes to stats[…, 1] for the second kernel
// One workgroup computes one row and head, 32 keys at a time; probabilities are recomputed, not stored.
var<workgroup> ds: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let pair = wg.x * p.heads + wg.y;
  let q0 = pair * DIM;
  let seen = seen_keys(wg.x, wg.y);
  let lseRow = stats[2u * pair];
  var sum = 0.0;
  for (var d = lane; d < DIM; d += WG) { sum += dout[q0 + d] * out[q0 + d]; }
  let D = reduce_sum(lane, sum);
  //#zero
  for (var base = 0u; base < seen.count; base += WG) {
    let at = seen_key(seen, min(base + lane, seen.count - 1u));
    var s = 0.0;
    var dp = 0.0;
    for (var d = 0u; d < DIM; d += UNROLL) {
      //#dots
    }
    ds[lane] = exp(s * p.scale - lseRow) * (dp - D) * p.scale;
    workgroupBarrier();
    let tile = min(WG, seen.count - base);
    for (var t = 0u; t < tile; t++) {
      let w = ds[t];
      let kt = seen_key(seen, base + t);
      //#values
    }
    workgroupBarrier();
  }
  //#store
  if (lane == 0u) { stats[2u * pair + 1u] = D; }
}
