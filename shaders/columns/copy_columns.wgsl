// to[r, toOffset + c] = from[r, fromOffset + c] for c < cols: a strided copy of a block of columns.
// One invocation an element; rows·cols elements, each read and written once.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * p.gridX + wg.x) * 64u + lane;
  if (i >= p.rows * p.cols) { return; }
  let r = i / p.cols;
  let c = i % p.cols;
  to[r * p.toLd + p.toOffset + c] = source[r * p.fromLd + p.fromOffset + c];
}
