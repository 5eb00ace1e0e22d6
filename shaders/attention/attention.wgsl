// Attention of rows over cached and live keys: o = Σ_j softmax_j(scale·q·k_j) v_j, one pass, running maximum.
//   q, o [Rq, H·Dh]   k, v [S, Hkv·Dh] (the store: row = slot)   stats [Rq, H, 2]
//   queries [Rq, 4]: first shared slot, shared count, first own slot, own count of what the row sees
// One workgroup computes one row and head; 32 keys at a time, a lane a key for the scores and a lane a
// column for the values. Reads each visible key and value once a head; no score is stored, the
// log-sum-exp goes to stats[…, 0] for the backward pass.
var<workgroup> weight: array<f32, WG>;
var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let pair = wg.x * p.heads + wg.y;
  let q0 = pair * DIM;
  let seen = seen_keys(wg.x, wg.y);
  var top = -1e30;
  var total = 0.0;
  //#zero
  for (var base = 0u; base < seen.count; base += WG) {
    let at = seen_key(seen, min(base + lane, seen.count - 1u));
    var s = 0.0;
    for (var d = 0u; d < DIM; d += UNROLL) {
      //#dot
    }
    s = select(-1e30, s * p.scale, base + lane < seen.count);
    partial[lane] = s;
    workgroupBarrier();
    for (var step = WG / 2u; step > 0u; step /= 2u) {
      if (lane < step) { partial[lane] = max(partial[lane], partial[lane + step]); }
      workgroupBarrier();
    }
    let newTop = max(top, partial[0]);
    let shrink = exp(top - newTop);
    weight[lane] = select(0.0, exp(s - newTop), base + lane < seen.count);
    workgroupBarrier();
    total *= shrink;
    top = newTop;
    //#shrink
    let tile = min(WG, seen.count - base);
    for (var t = 0u; t < tile; t++) {
      let w = weight[t];
      let vt = seen_key(seen, base + t);
      total += w;
      //#values
    }
    workgroupBarrier();
  }
  let norm = select(0.0, 1.0 / total, total > 0.0);
  //#store
  if (lane == 0u) { stats[2u * pair] = top + log(max(total, 1e-37)); }
}
