// The product A v of a symmetric matrix by 64×64 tiles of its lower triangle, as partial sums:
//   parts[K, i] = Σ_{k in tile column K} A[i, k] v[k], and the mirror images parts[I, k] from tile row I
//   a: a row panel of the triangle, tiles on the diagonal whole;  v [64, ld], row t;  parts [tiles, ld]
// One workgroup a tile, numbered from tile (rowBegin, colBegin) on in both directions. Invocation (g, s) of 16×4 owns rows
// (then columns) 4g…4g+3 and every fourth k; the four shares meet in workgroup memory. A tile is read twice,
// the second time from cache: 5 loads make 4 multiply-adds.
var<workgroup> shares: array<num, 256>;

fn collect(id: u32) -> num {
  return plus(plus(shares[id], shares[64u + id]), plus(shares[128u + id], shares[192u + id]));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
  begin();
  let tile = tile_of(wg);
  let row = p.rowBegin + 64u * tile.x;
  let col = p.colBegin + 64u * tile.y;
  let mine = id / 4u * 4u;
  let share = id % 4u;
  let line = p.t * p.ld;
  let corner = (row - p.panelRow) * p.panelLd + col;
  //#zero
  for (var k = share; k < 64u; k += 4u) {
    let x = v[line + col + k];
    let at = corner + mine * p.panelLd + k;
    //#rows
  }
  //#keep
  workgroupBarrier();
  parts[col / 64u * p.ld + row + id] = collect(id);
  if (row == col) { return; }
  workgroupBarrier();
  //#clear
  for (var k = share; k < 64u; k += 4u) {
    let x = v[line + row + k];
    let at = corner + k * p.panelLd + mine;
    //#columns
  }
  //#keep
  workgroupBarrier();
  parts[row / 64u * p.ld + col + id] = collect(id);
}
