// dx[r] (+)= fires(r) == FIRED ? dz[r] : 0: backward of choose_rows to what it copied (FIRED false) or took
// instead, row by row. dx, dz [rows, width]; an invocation writes one element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  var v = select(0.0, dz[i], fires(i / p.width) == FIRED);
  if (ACC) { v += dx[i]; }
  dx[i] = v;
}
