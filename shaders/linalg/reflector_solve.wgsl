// Y := T Y, where I - Vᵀ T V is the product of a block's reflectors (rows of V):
//   T⁻¹ = striu(V Vᵀ) + diag(1/τ)  (Puglisi 1992; Joffrain & al. 2006), so T Y is a substitution upwards
//   gram [64, 64] = V Vᵀ;  scalars [3, ld]: τ of column j0 + k in row 2;  y [64, m]
// A column without a reflector has τ = 0 and v = 0; its row of Y becomes zero. One invocation a column of Y.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  begin();
  if (id.x >= p.m) { return; }
  for (var k = p.count; k > 0u; k--) {
    let r = k - 1u;
    var sum = y[r * p.m + id.x];
    for (var s = k; s < p.count; s++) { sum = mac(sum, gram[r * 64u + s], -y[s * p.m + id.x]); }
    y[r * p.m + id.x] = times(sum, scalars[2u * p.ld + p.j0 + r]);
  }
}
