// t[r, k] ← 0 where row r and key k belong to different groups; t [rows, keys]. One invocation an element, which
// is written only where it must go.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  if (row_group[i / p.keys] != key_group[i % p.keys]) { t[i] = 0.0; }
}
