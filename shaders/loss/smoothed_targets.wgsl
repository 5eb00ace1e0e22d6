// Log-probabilities of smoothed answers: row r has `on` at target[r] and `off` elsewhere; n = rows·vocab elements, one
// an invocation, 4 bytes an element.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  y[i] = select(p.off, p.on, target_ids[i / p.vocab] == i % p.vocab);
}
