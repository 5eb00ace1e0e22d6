// y[r] = the index of the largest x[r, ·], the lowest one among equals; x [rows, width] f32, y [rows] u32.
// NaN never wins; a row of nothing else gives 0. One workgroup a row, an invocation takes every WG-th
// element; x is read once.
var<workgroup> best: array<f32, WG>;
var<workgroup> where_best: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let row = wg.y * grid.x + wg.x;
  if (row >= p.rows) { return; }
  var top = -3.4028234e38;
  var at = lane;
  for (var c = lane; c < p.width; c += WG) {
    let v = x[row * p.width + c];
    if (v > top) {
      top = v;
      at = c;
    }
  }
  best[lane] = top;
  where_best[lane] = at;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      let v = best[lane + half];
      let c = where_best[lane + half];
      if (v > best[lane] || (v == best[lane] && c < where_best[lane])) {
        best[lane] = v;
        where_best[lane] = c;
      }
    }
    workgroupBarrier();
  }
  if (lane == 0u) { y[row] = where_best[0]; }
}
