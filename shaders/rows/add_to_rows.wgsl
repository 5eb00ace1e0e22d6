// y[index[i]] += delta[group[i]]; y [rows, width], delta [groups, width], index, group [n / width], indices
// distinct. An invocation adds one element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let c = i % p.width;
  let row = i / p.width;
  y[index[row] * p.width + c] += delta[group[row] * p.width + c];
}
