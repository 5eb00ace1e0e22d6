// Backward of attention to the queries for software drivers whose subgroups have 8 lanes: the formula and the
// tensors of attention_dq.wgsl, the tiling of attention_subgroup.wgsl. D goes to stats[…, 1].
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let pair = wg.x * p.heads + wg.y;
  let q0 = pair * PARTS;
  let seen = seen_keys(wg.x, wg.y);
  let lseRow = stats[2u * pair];
  var sum = 0.0;
  for (var d = lane; d < PARTS; d += 8u) { sum += dot(dout[q0 + d], out[q0 + d]); }
  let D = subgroupAdd(sum);
  //#zero
  for (var base = 0u; base < seen.count; base += 8u) {
    let at = seen_key(seen, min(base + lane, seen.count - 1u));
    var s4 = vec4<f32>();
    var dp4 = vec4<f32>();
    for (var d = 0u; d < PARTS; d += 8u) {
      let column = q0 + min(d + lane, PARTS - 1u);
      let mine = select(vec4<f32>(), q[column], d + lane < PARTS);
      let dmine = select(vec4<f32>(), dout[column], d + lane < PARTS);
      //#dots
    }
    let s = dot(s4, vec4<f32>(p.scale));
    let dp = dot(dp4, vec4<f32>(1.0));
    let ds = select(0.0, exp(s - lseRow) * (dp - D) * p.scale, base + lane < seen.count);
    //#values
  }
  //#store
  if (lane == 0u) { stats[2u * pair + 1u] = D; }
}
