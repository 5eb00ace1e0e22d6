// Takes vectors into or out of a Cholesky factor, L Lᵀ ± X Xᵀ = L' L'ᵀ: one 64×64 diagonal block.
//   panel: a row panel of L, block at (k0, k0);  x [count, ld]: vector r is row r, spoiled
//   turns [64, count, 2]: receives c and s of column j and vector r, for rotate_rows.wgsl
//   status: word 0 the first column + 1 whose pivot was below `least`, word 1 that pivot's bits as f32
// Into (DOWN = false): plane rotations, c = l/l', s = x/l'. Out of (true): hyperbolic ones in the mixed form,
// which is as stable as the problem allows (Golub & Van Loan 6.5.4; Bojanczyk & al. 1987), c = l'/l, s = x/l.
// A pivot below `least` is set to it. One workgroup of 64 invocations, one a row; invocation j turns column
// j's diagonal through all vectors, then the rows below it follow.
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) i: u32) {
  let line = (p.k0 + i - p.panelRow) * p.panelLd + p.k0;
  for (var j = 0u; j < 64u; j++) {
    if (i == j) {
      var l = panel[line + j];
      for (var r = 0u; r < p.count; r++) {
        let v = x[r * p.ld + p.k0 + j];
        let at = (j * p.count + r) * 2u;
        if (DOWN) {
          var square = (l - v) * (l + v);
          if (!(f32(square) >= p.least)) {
            if (status[0] == 0u) {
              status[0] = p.k0 + j + 1u;
              status[1] = bitcast<u32>(f32(square));
            }
            square = real(p.least);
          }
          let root = sqrt(square);
          turns[at] = root / l;
          turns[at + 1u] = v / l;
          l = root;
        } else {
          let root = sqrt(l * l + v * v);
          turns[at] = l / root;
          turns[at + 1u] = v / root;
          l = root;
        }
      }
      panel[line + j] = l;
    }
    storageBarrier();
    if (i > j) {
      var l = panel[line + j];
      for (var r = 0u; r < p.count; r++) {
        let at = (j * p.count + r) * 2u;
        let word = r * p.ld + p.k0 + i;
        //#turn
      }
      panel[line + j] = l;
    }
    storageBarrier();
  }
}
