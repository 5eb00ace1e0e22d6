// Takes vectors into or out of a Cholesky factor: the rows below a diagonal block that rotate_block.wgsl did.
//   panel: columns [k0, k0 + 64) of rows [rowBegin, rowEnd);  x [count, ld];  turns [64, count, 2]
// Every column of a row meets every vector in order. One invocation owns four rows and takes four vectors
// through the 64 columns at a time, in registers: 16 accesses make 16 turns of 6 operations. `count` is a
// multiple of four, and so is the number of rows. The blocks //# come from linalg_update.ts.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = p.rowBegin + 4u * id.x;
  if (row >= p.rowEnd) { return; }
  let line = (row - p.panelRow) * p.panelLd + p.k0;
  for (var r = 0u; r < p.count; r += 4u) {
    let word = r * p.ld + row;
    //#vectors
    for (var j = 0u; j < 64u; j++) {
      let at = (j * p.count + r) * 2u;
      //#columns
      //#turns
      //#keep
    }
    //#store
  }
}
