// Backward of attention to the live keys and values for software drivers whose subgroups have 8 lanes: the
// formula and the tensors of attention_dkv.wgsl, in parts of four columns. One workgroup is one subgroup and
// computes one key row and key head, 8 pairs of row and head at a time: a lane a pair, then a lane every
// eighth part. Why: see attention_subgroup.wgsl.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = (wg.x * p.kvHeads + wg.y) * PARTS;
  let seeing = seeing_heads(wg.x, wg.y);
  //#zero
  for (var base = 0u; base < seeing.count; base += 8u) {
    let pair = seeing_head(seeing, min(base + lane, seeing.count - 1u));
    let qi = pair * PARTS;
    var s4 = vec4<f32>();
    var dp4 = vec4<f32>();
    for (var d = 0u; d < PARTS; d += 8u) {
      let column = at + min(d + lane, PARTS - 1u);
      let kmine = select(vec4<f32>(), k[column], d + lane < PARTS);
      let vmine = select(vec4<f32>(), v[column], d + lane < PARTS);
      //#dots
    }
    let s = dot(s4, vec4<f32>(p.scale));
    let dp = dot(dp4, vec4<f32>(1.0));
    let prob = select(0.0, exp(s - stats[2u * pair]), base + lane < seeing.count);
    let ds = prob * (dp - stats[2u * pair + 1u]) * p.scale;
    //#values
  }
  //#store
}
