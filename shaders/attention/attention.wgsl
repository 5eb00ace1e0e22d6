// Attention of rows over cached and live keys: o = Σ_j softmax_j(scale·q·k_j) v_j, one pass, running maximum.
//   q, o [Rq, H·Dh]   k, v [S, Hkv·Dh] (the store: row = slot)   stats [Rq, H, 2]
//   queries [Rq, 4]: first shared slot, shared count, first own slot, own count of what the row sees
// One workgroup computes one row and head; 32 keys at a time, a lane a key for the scores and a lane a
// column for the values. Reads each visible key and value once a head; no score is stored, the
// log-sum-exp goes to stats[…, 0] for the backward pass.
const LANES: u32 = 32u;
var<workgroup> weight: array<f32, LANES>;
var<workgroup> partial: array<f32, LANES>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x;
  let head = wg.y;
  let q0 = row * p.heads * DIM + head * DIM;
  let kvWidth = p.kvHeads * DIM;
  let kv0 = head / (p.heads / p.kvHeads) * DIM;
  let shared0 = queries[4u * row];
  let sharedCount = queries[4u * row + 1u];
  let own0 = queries[4u * row + 2u];
  let count = sharedCount + queries[4u * row + 3u];
  var top = -1e30;
  var total = 0.0;
  //#zero
  for (var base = 0u; base < count; base += LANES) {
    let j = min(base + lane, count - 1u);
    let slot = select(own0 + j - sharedCount, shared0 + j, j < sharedCount);
    let at = slot * kvWidth + kv0;
    var s = 0.0;
    for (var d = 0u; d < DIM; d += UNROLL) {
      //#dot
    }
    s = select(-1e30, s * p.scale, base + lane < count);
    partial[lane] = s;
    workgroupBarrier();
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
      if (lane < step) { partial[lane] = max(partial[lane], partial[lane + step]); }
      workgroupBarrier();
    }
    let newTop = max(top, partial[0]);
    let shrink = exp(top - newTop);
    weight[lane] = select(0.0, exp(s - newTop), base + lane < count);
    workgroupBarrier();
    total *= shrink;
    top = newTop;
    //#shrink
    let tile = min(LANES, count - base);
    for (var t = 0u; t < tile; t++) {
      let w = weight[t];
      let jt = base + t;
      let vt = select(own0 + jt - sharedCount, shared0 + jt, jt < sharedCount) * kvWidth + kv0;
      total += w;
      //#values
    }
    workgroupBarrier();
  }
  let norm = select(0.0, 1.0 / total, total > 0.0);
  //#store
  if (lane == 0u) { stats[2u * (row * p.heads + head)] = top + log(max(total, 1e-37)); }
}
