// Backward of scope_loss: with g = dloss·w·(1, or −1/(e^D − 1) for a pair that should be apart)
//   da (+)= 2 g (a − b),  db (+)= −2 g (a − b)
// a, b, da, db [pairs, width]. One invocation an element. Where D is below 1e-6 a pair that should be apart has
// the slope of 1e-6.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (group.y * groups.x + group.x) * 256u + lane;
  if (at >= p.pairs * p.width) { return; }
  let pair = at / p.width;
  let low = max(distance[pair], 1e-6);
  let series = low * (1.0 + low * (0.5 + low * (0.16666667 + low * (0.041666667 + low * 0.0083333333))));
  let growth = select(exp(min(low, 80.0)) - 1.0, series, low < 0.1);
  let slope = select(-1.0 / growth, 1.0, positive[pair] == 1u);
  let g = 2.0 * dloss[pair] * weights[pair] * slope * (a[at] - b[at]);
  if (ACC_A) { da[at] += g; } else { da[at] = g; }
  if (ACC_B) { db[at] -= g; } else { db[at] = -g; }
}
