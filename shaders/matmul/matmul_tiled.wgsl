// C[M,N] (+)= A·B for GPUs, and for every device without fixed subgroups of 8.
//   nt: A [M,K], B [N,K]    nn: A [M,K], B [K,N]    tn: A [K,M], B [K,N]
// One workgroup of 16×16 invocations owns a tile of 16·TM × 16·TN; an invocation owns TM×TN of it, 16 apart,
// so that stores and shared loads of neighbours are contiguous. Slices of 16 k go through workgroup memory,
// stored k-major and padded by one: (TM + TN)·16·17·4 bytes, 8.5 KiB at 4×4. A element is read N/(16·TN)
// times and B M/(16·TM) times. Elements past the end are zero in the tile and dropped at the store.
const SLICE: u32 = 16u;
var<workgroup> tileA: array<array<f32, 16u * TM + 1u>, SLICE>;
var<workgroup> tileB: array<array<f32, 16u * TN + 1u>, SLICE>;

fn load_a(row: u32, k: u32) -> f32 {
  if (row >= p.M || k >= p.K) { return 0.0; }
  return a[p.aOffset + select(row * p.lda + k, k * p.lda + row, A_T)];
}

fn load_b_at(k: u32, col: u32) -> f32 {
  if (col >= p.N || k >= p.K) { return 0.0; }
  return load_b(p.bOffset + select(k * p.ldb + col, col * p.ldb + k, B_T));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let x = i % 16u;
  let y = i / 16u;
  let row0 = wg.x * 16u * TM;
  let col0 = wg.y * 16u * TN;
  //#zero
  for (var k0 = 0u; k0 < p.K; k0 += SLICE) {
    // The fast index of the load follows the contiguous axis of its matrix.
    for (var s = 0u; s < TM; s++) {
      let r = select(y + 16u * s, x + 16u * s, A_T);
      let k = select(x, y, A_T);
      tileA[k][r] = load_a(row0 + r, k0 + k);
    }
    for (var s = 0u; s < TN; s++) {
      let n = select(x + 16u * s, y + 16u * s, B_T);
      let k = select(y, x, B_T);
      tileB[k][n] = load_b_at(k0 + k, col0 + n);
    }
    workgroupBarrier();
    for (var k = 0u; k < SLICE; k++) {
      //#products
    }
    workgroupBarrier();
  }
  //#store
}
