// Backward of mixture_loss: with d = dloss·w and g = −q/m,
//   dz (+)= d s c (g − Σ g c),   dD (+)= −d s (Σ g c − Σ g b)
// base, z, dz [rows, V]; distance, dloss, ddistance [rows]; state [rows, 5] from the forward kernel. One workgroup
// a row; z and base are read once, dz is written once.
const EPS: f32 = 1.1920929e-7;

@compute @workgroup_size(WG)
fn main(wg: Workgroup, @builtin(local_invocation_index) lane: u32) {
  let row = row_of(wg);
  if (row >= p.rows) { return; }
  let start = row * p.width;
  let at = 5u * row;
  let s = exp(-distance[row]);
  let d = dloss[row] * state[at + 4u];
  let toC = state[at + 1u];
  let wanted = u32(state[at + 3u]);
  for (var v = lane; v < p.width; v += WG) {
    let b = exp(base[start + v]);
    let c = exp(z[start + v] - state[at]);
    let q = select(select(0.0, 1.0, v == wanted), b, row >= p.klStart);
    let g = -q / ((1.0 - s) * b + s * c + EPS);
    let change = d * s * c * (g - toC);
    if (ACC_Z) { dz[start + v] += change; } else { dz[start + v] = change; }
  }
  if (lane == 0u) {
    let change = -d * s * (toC - state[at + 2u]);
    if (ACC_D) { ddistance[row] += change; } else { ddistance[row] = change; }
  }
}
