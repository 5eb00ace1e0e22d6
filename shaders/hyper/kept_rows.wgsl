// keep[r] = 1 where both u[r] and d[r] have an element that is not exactly 0, else 0; u [rows, in], d [rows, out].
// One invocation a row, which ends its search at the first such element.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let r = id.x;
  if (r >= p.rows) { return; }
  var live_u = 0u;
  for (var c = 0u; c < p.in_width && live_u == 0u; c++) { live_u = select(0u, 1u, u[r * p.in_width + c] != 0.0); }
  var live_d = 0u;
  for (var c = 0u; c < p.out_width && live_d == 0u; c++) { live_d = select(0u, 1u, d[r * p.out_width + c] != 0.0); }
  keep[r] = live_u * live_d;
}
