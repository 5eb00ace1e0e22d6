// Backward of top_exp.wgsl from the weights [n]; an invocation owns one element of what gets the gradient.
//   to x      dx[i] (+)= sign·weight[i / step] where step divides i, else 0
//   to shift  ds[i] (+)= −Σ weight[e] over e mod cols = i / step where step divides i, else 0
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 64u + lane;
  if (i >= p.size) { return; }
  var v = 0.0;
  if (i % p.step == 0u) {
    let e = i / p.step;
    if (!SHIFT) { if (e < p.n) { v = p.sign * weight[e]; } }
    else if (e < p.cols) { for (var j = e; j < p.n; j += p.cols) { v -= weight[j]; } }
  }
  if (ACC) { v += d[i]; }
  d[i] = v;
}
