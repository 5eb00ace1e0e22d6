// C[i, j] = Σ_k A(k, i) B(k, j), or C -= that when SUBTRACT, in wide numbers, on 64×64 tiles.
//   A(k, i) at aOffset + k·aStep + i·aLane, B likewise: any orientation of either
//   C rows [rowBegin, rowEnd) × columns [colBegin, colEnd), element (i, j) at (i - panelRow)·panelLd + j
// The products of a Householder reduction and of what follows it. tri = 1: the tiles of a lower triangle only
// (see tile.wgsl). One workgroup owns a tile, an invocation BLOCK neighbouring rows × BLOCK columns 64 / BLOCK
// apart: 2·BLOCK loads for BLOCK² multiply-adds, no workgroup memory. Indices past the end are clamped for
// loads and dropped at the store. The blocks //# come from linalg_wide.ts.
const SIDE: u32 = 64u / BLOCK;

fn store(row: u32, col: u32, v: num) {
  if (row < p.rowEnd && col < p.colEnd) {
    let at = (row - p.panelRow) * p.panelLd + col;
    if (SUBTRACT) { c[at] = plus(c[at], -v); } else { c[at] = v; }
  }
}

@compute @workgroup_size(SIDE * SIDE)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
  begin();
  let tile = tile_of(wg);
  let row0 = p.rowBegin + 64u * tile.x + id / SIDE * BLOCK;
  let col0 = p.colBegin + 64u * tile.y + id % SIDE;
  //#addresses
  //#zero
  for (var k = 0u; k < p.K; k++) {
    //#products
  }
  //#store
}
