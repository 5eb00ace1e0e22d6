// Attention for software drivers whose subgroups have 8 lanes; the formula and the tensors of attention.wgsl,
// in parts of four columns: q, o [Rq, H·Dh/4]   k, v [S, Hkv·Dh/4]   DIM = Dh, PARTS = Dh/4
// One workgroup is one subgroup and computes one row and head, 8 keys at a time: a lane a key for the scores,
// then a lane every eighth part for the values. The row's q and the weights reach all lanes by shuffles.
// Why: llvmpipe serves a load lane by lane, four words for little more than one, and switches between
// subgroups at each barrier. Wide loads and no barrier make it 7 times as fast as workgroups of 32 (2.3
// ms of CPU for 64 rows and 9 heads of 64, against 16).
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let pair = wg.x * p.heads + wg.y;
  let q0 = pair * PARTS;
  let seen = seen_keys(wg.x, wg.y);
  var top = -1e30;
  var total = 0.0;
  //#zero
  for (var base = 0u; base < seen.count; base += 8u) {
    let at = seen_key(seen, min(base + lane, seen.count - 1u));
    var s4 = vec4<f32>();
    for (var d = 0u; d < PARTS; d += 8u) {
      let mine = select(vec4<f32>(), q[q0 + min(d + lane, PARTS - 1u)], d + lane < PARTS);
      //#dot
    }
    let live = base + lane < seen.count;
    let s = select(-1e30, dot(s4, vec4<f32>(p.scale)), live);
    let newTop = max(top, subgroupMax(s));
    let shrink = exp(top - newTop);
    let weight = select(0.0, exp(s - newTop), live);
    total = total * shrink + subgroupAdd(weight);
    top = newTop;
    //#shrink
    //#values
  }
  let norm = select(0.0, 1.0 / total, total > 0.0);
  //#store
  if (lane == 0u) { stats[2u * pair] = top + log(max(total, 1e-37)); }
}
