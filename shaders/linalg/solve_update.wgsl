// B[i, c] -= Σ_q L(i, q) X[q, c] over the 64 rows X = B[k0…k0 + 64) that were just solved.
//   forward: L(i, q) = L[i, k0 + q], rows i below the block;  backward: L[k0 + q, i], rows before it
//   panel: a row panel of the factor, L(i, q) at origin + (i - baseRow)·rowStride + q·stepStride;  b [n, m]
// One invocation owns 4 rows × COLS right-hand sides: 4 + COLS loads for 4·COLS multiply-adds. Neighbouring
// invocations take neighbouring right-hand sides, then rows, so one kernel suits m = 1 and m = 100.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let groups = p.m / COLS;
  let col = id.x % groups * COLS;
  let row = p.rowBegin + id.x / groups * 4u;
  if (row >= p.rowEnd) { return; }
  let x0 = p.k0 * p.m + col;
  let l0 = p.origin + (row - p.baseRow) * p.rowStride;
  //#zero
  for (var q = 0u; q < 64u; q++) {
    let x = x0 + q * p.m;
    let l = l0 + q * p.stepStride;
    //#products
  }
  let at = row * p.m + col;
  //#store
}
