// y[s] = mean of the rows offsets[s] .. offsets[s+1] of x [rows, width]; y [segments, width]. One invocation an
// element of y, workgroups of 64; x is read once.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * grid.x + wg.x) * 64u + lane;
  if (at >= p.segments * p.width) { return; }
  let segment = at / p.width;
  let column = at % p.width;
  let first = offsets[segment];
  let end = offsets[segment + 1u];
  var sum = 0.0;
  for (var row = first; row < end; row++) { sum += x[row * p.width + column]; }
  y[at] = sum / f32(max(end - first, 1u));
}
