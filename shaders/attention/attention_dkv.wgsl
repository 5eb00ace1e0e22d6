// Backward of attention to the live keys and values:
//   dk_j = Σ_i dS_ij q_i    dv_j = Σ_i P_ij dO_i    over the rows and heads i that see key j
//   k, v, dk, dv [Rk, Hkv·Dh] (live rows, not slots)   keys [Rk, 2]: first query row, end of query rows
// One workgroup computes one key row and key head; 32 (row, head) pairs at a time, a lane a pair, then a
// lane a column. A fixed order, no atomics.
var<workgroup> ds: array<f32, WG>;
var<workgroup> prob: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = (wg.x * p.kvHeads + wg.y) * DIM;
  let seeing = seeing_heads(wg.x, wg.y);
  //#zero
  for (var base = 0u; base < seeing.count; base += WG) {
    let pair = seeing_head(seeing, min(base + lane, seeing.count - 1u));
    let qi = pair * DIM;
    var s = 0.0;
    var dp = 0.0;
    for (var d = 0u; d < DIM; d += UNROLL) {
      //#dots
    }
    let P = exp(s * p.scale - stats[2u * pair]);
    prob[lane] = P;
    ds[lane] = P * (dp - stats[2u * pair + 1u]) * p.scale;
    workgroupBarrier();
    let tile = min(WG, seeing.count - base);
    for (var t = 0u; t < tile; t++) {
      let wp = prob[t];
      let ws = ds[t];
      let qt = seeing_head(seeing, base + t) * DIM;
      //#values
    }
    workgroupBarrier();
  }
  //#store
}
