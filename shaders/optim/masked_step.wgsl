// param ← clamp(param − lr·(grad + decay·(base + param)), ±bound) at the elements of a random mask, others stay: one
// step of gradient descent on W' = base + param. Element i is in the mask where the i-th number of the generator
// mulberry32 from p.seed is below p.limit. An invocation takes one element; base f32, f16 or bf16.
fn random(i: u32) -> u32 {
  let state = p.seed + (i + 1u) * 0x6d2b79f5u;
  var t = (state ^ (state >> 15u)) * (state | 1u);
  t ^= t + (t ^ (t >> 7u)) * (t | 61u);
  return t ^ (t >> 14u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n || random(p.first + i) >= p.limit) { return; }
  let x = param[i];
  param[i] = clamp(x - p.lr * (grad[i] + p.decay * (load_weight(i) + x)), -p.bound, p.bound);
}
