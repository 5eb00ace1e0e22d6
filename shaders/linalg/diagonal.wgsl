// y[i] = C[i, i] for rows [rowBegin, rowEnd); row srcRow of C starts the buffer. One invocation a row.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = p.rowBegin + id.x;
  if (row < p.rowEnd) { y[row] = src[(row - p.srcRow) * p.srcLd + row]; }
}
