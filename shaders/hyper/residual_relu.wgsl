// y = h + max(0, x ⊙ s + t), with AFTER y = h + s ⊙ max(0, x) + t; h and x [rows, width], s and t [modes, width],
// rows first[q] up to first[q + 1] have mode q. One invocation an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let r = i / p.width;
  var q = 0u;
  while (q + 1u < p.modes && r >= first[q + 1u]) { q++; }
  let j = q * p.width + i % p.width;
  if (AFTER) {
    y[i] = h[i] + s[j] * max(0.0, x[i]) + t[j];
  } else {
    y[i] = h[i] + max(0.0, x[i] * s[j] + t[j]);
  }
}
