// Which 64×64 tile a workgroup owns. tri = 0: the grid is (row tiles, column tiles). tri = 1: the grid is
// linear over a trapezoid below the diagonal whose first row of tiles has first + 1 of them.
fn tile_of(wg: vec3<u32>) -> vec2<u32> {
  if (p.tri == 0u) { return wg.xy; }
  let t = wg.x + p.first * (p.first + 1u) / 2u;
  var i = u32((sqrt(8.0 * f32(t) + 1.0) - 1.0) * 0.5);
  if (i * (i + 1u) / 2u > t) { i -= 1u; }
  if ((i + 1u) * (i + 2u) / 2u <= t) { i += 1u; }
  return vec2<u32>(i - p.first, t - i * (i + 1u) / 2u);
}
