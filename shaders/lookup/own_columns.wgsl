// y[r, c] (+)= x[r, c] where the sequence of row r has chosen entry c/rank, else 0; x, y [rows, width]. One invocation
// an element, workgroups of 256.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var v = select(0.0, x[i], choice[sequence[i / p.width]] == i % p.width / p.rank);
  if (ACC) { v += y[i]; }
  y[i] = v;
}
