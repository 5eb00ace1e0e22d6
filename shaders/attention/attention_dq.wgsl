// Backward of attention to the queries. With P = exp(scale·q·k − lse), D = dO·O, dS = P (dO·v − D) scale:
//   dq = Σ_j dS_j k_j
//   shapes as in attention.wgsl; D goes to stats[…, 1] for the second kernel
// One workgroup computes one row and head, 32 keys at a time; probabilities are recomputed, not stored.
const LANES: u32 = 32u;
var<workgroup> ds: array<f32, LANES>;
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
  let lseRow = stats[2u * (row * p.heads + head)];
  var sum = 0.0;
  for (var d = lane; d < DIM; d += LANES) { sum += dout[q0 + d] * out[q0 + d]; }
  partial[lane] = sum;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) { partial[lane] += partial[lane + step]; }
    workgroupBarrier();
  }
  let D = partial[0];
  //#zero
  for (var base = 0u; base < count; base += LANES) {
    let j = min(base + lane, count - 1u);
    let at = select(own0 + j - sharedCount, shared0 + j, j < sharedCount) * kvWidth + kv0;
    var s = 0.0;
    var dp = 0.0;
    for (var d = 0u; d < DIM; d += UNROLL) {
      //#dots
    }
    ds[lane] = exp(s * p.scale - lseRow) * (dp - D) * p.scale;
    workgroupBarrier();
    let tile = min(LANES, count - base);
    for (var t = 0u; t < tile; t++) {
      let w = ds[t];
      let jt = base + t;
      let kt = select(own0 + jt - sharedCount, shared0 + jt, jt < sharedCount) * kvWidth + kv0;
      //#values
    }
    workgroupBarrier();
  }
  //#store
  if (lane == 0u) { stats[2u * (row * p.heads + head) + 1u] = D; }
}
