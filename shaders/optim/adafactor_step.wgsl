// param[i,j] −= scale·g[i,j] / √(R[i] C[j]). An invocation takes one element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  // Two roots: the product of two moments may be below what f32 holds.
  let root = sqrt(moments[i / p.width]) * sqrt(columns[i % p.width]);
  param[i] -= scale[0] * grad[i] / root;
}
