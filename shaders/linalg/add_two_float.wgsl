// The two-float number (c, lo) += x on a block of rows of a panel; needs eft.wgsl.
//   x [rows, width] f32: a product; c, lo: a panel and its low words, from element `at` on, rows ld apart
// One invocation four neighbours of a row, 48 bytes read and 32 written. What x holds past column n is not
// a number anyone made, and becomes zero.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 64u + lane;
  let parts = p.width / 4u;
  if (i >= p.rows * parts) { return; }
  zero_bits = zero[0];
  let col = 4u * (i % parts);
  let v = select(vec4<f32>(), x[i], vec4<u32>(col, col + 1u, col + 2u, col + 3u) < vec4<u32>(p.n));
  let at = (p.at + i / parts * p.ld + col) / 4u;
  let high = c[at];
  let low = lo[at];
  let s0 = acc_add(vec2<f32>(high.x, low.x), v.x);
  let s1 = acc_add(vec2<f32>(high.y, low.y), v.y);
  let s2 = acc_add(vec2<f32>(high.z, low.z), v.z);
  let s3 = acc_add(vec2<f32>(high.w, low.w), v.w);
  c[at] = vec4<f32>(s0.x, s1.x, s2.x, s3.x);
  lo[at] = vec4<f32>(s0.y, s1.y, s2.y, s3.y);
}
