// y[r] = x[r] ⊙ s[group[r]]; x and y [rows, width], s [groups, width]. One invocation an element.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x;
  if (at >= p.n) { return; }
  y[at] = x[at] * s[group[at / p.width] * p.width + at % p.width];
}
