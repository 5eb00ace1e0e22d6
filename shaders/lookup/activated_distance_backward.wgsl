// ddelta[r] (+)= dd[r, column]·φ'(o + δ)·(φ(o + δ) − φ(o))/d[r, column], 0 where the distance is 0: backward of
// activated_distance to delta. One invocation an element, workgroups of 256.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.rows * p.width) { return; }
  let pair = i / p.width * p.n + p.column;
  var o = y[i];
  if (RESIDUAL) { o -= residual[i]; }
  let moved = o + delta[i];
  var v = 0.0;
  if (d[pair] > 0.0) { v = dd[pair] * d_act(moved) * (act(moved) - act(o)) / d[pair]; }
  if (ACC) { v += ddelta[i]; }
  ddelta[i] = v;
}
