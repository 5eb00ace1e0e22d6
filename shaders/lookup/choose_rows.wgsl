// z[r] = fires(r) ? other (+ residual[r]) : y[r], where other is table[choice[sequence[r]]] (TABLE) or table[r].
// y, z, residual [rows, width]; an invocation writes one element. Rows that do not fire are copied bit by bit.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let r = i / p.width;
  if (!fires(r)) {
    z[i] = y[i];
    return;
  }
  var at = i;
  if (TABLE) { at = choice[sequence[r]] * p.width + i % p.width; }
  var v = table[at];
  if (RESIDUAL) { v += residual[i]; }
  z[i] = v;
}
