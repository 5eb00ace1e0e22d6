// C[M,N] (+)= A·B for software drivers whose subgroups have 8 lanes.
//   nt: A [M,K], B [N,K]    nn: A [M,K], B [K,N]    tn: A [K,M], B [K,N]
// One workgroup is one subgroup and owns 8·GROUPS rows × COLS columns: a lane owns GROUPS rows, eight apart,
// and all columns of them. A step takes eight k. Operands come in blocks of 8×8, eight neighbours in memory a
// lane: of A a lane gets eight k of its row (tn: eight rows of its k, transposed between lanes), of B eight k
// of its column (nn, tn: eight columns of its k). An element of B reaches all rows through a shuffle with a
// constant lane. No barrier, no workgroup memory.
// Why: llvmpipe serves a load lane by lane in a loop, whatever the addresses: about 60 cycles for four words
// a lane. A multiply-add of eight rows is about one cycle and a constant shuffle hides behind it. So a step
// costs 120·(GROUPS + COLS/8) cycles of loads for 8·GROUPS·COLS of arithmetic, and large tiles pay; the time
// to compile the unrolled arithmetic bounds them (table in kernels/matmul_subgroup.ts).
// Where the device has 64-bit integers, an f32 block is one load of four long words, not two: nt gains 10 %.
// Rows and columns past the end read whatever is there, bounded by the driver, and are dropped at the store;
// k past the end is zeroed (variant TAIL). The blocks marked //# are unrolled.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
  let lane = id.x;
  let row0 = p.row0 + wg.x * 8u * GROUPS;
  let col0 = wg.y * COLS;
  //#addresses
  //#zero
  for (var k = 0u; k < p.K; k += 8u) {
    //#loads
    //#products
  }
  //#store
  if (BIAS || RESIDUAL) {
    // A second pass in a loop: a load takes as long to compile as dozens of multiply-adds.
    for (var row = row0 + lane; row < min(row0 + 8u * GROUPS, p.M); row += 8u) {
      for (var col = col0; col < min(col0 + COLS, p.N); col += STORED) { finish(row, col); }
    }
  }
}
