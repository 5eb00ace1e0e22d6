// Backward of attention to the live keys and values:
//   dk_j = Σ_i dS_ij q_i    dv_j = Σ_i P_ij dO_i    over the rows and heads i that see key j
//   k, v, dk, dv [Rk, Hkv·Dh] (live rows, not slots)   keys [Rk, 2]: first query row, end of query rows
// One workgroup computes one key row and key head; 32 (row, head) pairs at a time, a lane a pair, then a
// lane a column. A fixed order, no atomics.
const LANES: u32 = 32u;
var<workgroup> ds: array<f32, LANES>;
var<workgroup> prob: array<f32, LANES>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let key = wg.x;
  let kvHead = wg.y;
  let group = p.heads / p.kvHeads;
  let at = key * p.kvHeads * DIM + kvHead * DIM;
  let first = keys[2u * key];
  let count = (keys[2u * key + 1u] - first) * group;
  //#zero
  for (var base = 0u; base < count; base += LANES) {
    let i = min(base + lane, count - 1u);
    let rh = (first + i / group) * p.heads + kvHead * group + i % group;
    let qi = rh * DIM;
    var s = 0.0;
    var dp = 0.0;
    for (var d = 0u; d < DIM; d += UNROLL) {
      //#dots
    }
    let P = exp(s * p.scale - stats[2u * rh]);
    prob[lane] = P;
    ds[lane] = P * (dp - stats[2u * rh + 1u]) * p.scale;
    workgroupBarrier();
    let tile = min(LANES, count - base);
    for (var t = 0u; t < tile; t++) {
      let wp = prob[t];
      let ws = ds[t];
      let it = base + t;
      let qt = ((first + it / group) * p.heads + kvHead * group + it % group) * DIM;
      //#values
    }
    workgroupBarrier();
  }
  //#store
}
