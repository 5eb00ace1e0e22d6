// Zeroes the values with the least scores by a schedule; n values, one an invocation.
//   cuts [steps]: how many values go after this step: 0 none, AGAIN those that went last time
//   clock [1]: 1 in the first step; kept [n]: 1 for values that stay
// A value goes when fewer than `cut` scores are below its own, so equal scores go together (torch.kthvalue and
// ≤, as peft has it). n² comparisons: n is the ranks of all adapters together, some thousands at most.
const AGAIN = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= p.n) { return; }
  let cut = cuts[min(clock[0] - 1u, p.steps - 1u)];
  if (cut == 0u) { return; }
  if (cut != AGAIN) {
    var below = 0u;
    let mine = scores[i];
    for (var j = 0u; j < p.n; j++) { below += select(0u, 1u, scores[j] < mine); }
    kept[i] = select(1u, 0u, below < cut);
  }
  if (kept[i] == 0u) { values[i] = 0.0; }
}
