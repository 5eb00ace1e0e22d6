// flag[0] = code when x has a NaN or an infinity and flag[0] is still 0; n elements of f32 as bits, one an
// invocation. All invocations that store store the same code, so the result does not depend on their order.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let exponent = x[i] & 0x7f800000u;
  if (exponent == 0x7f800000u && atomicLoad(&flag[0]) == 0u) { atomicStore(&flag[0], p.code); }
}
