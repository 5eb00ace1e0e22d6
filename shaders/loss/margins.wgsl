// The margins of a side memory, and when its training ends. With D_e the distances of the edit's texts (the first
// p.inside), D_o that of the other text (the last one), and [x]+ averaged over its positive entries:
//   act = [D_o − D_e + γ]+ + [D_o − α]+ + [β − D_e]+         loss = Σ terms + act
//   pull [inside + 1] = ∂act/∂D
//   history[step] = (Σ terms, act); progress = (the last loss, the one before it, mean D_e of this step)
//   flags = (steps so far, 1 + the step of a loss that is not finite)
//   done [1]: 1, so no update, when the last loss is at most p.low and not p.still away from the one before
// One invocation: there are a dozen texts, and the order is fixed.
@compute @workgroup_size(1)
fn main() {
  if (done[0] != 0u) { return; }
  let step = flags[0];
  let out = dist[p.inside];
  var inside = 0.0;
  var near = 0u;
  var low = 0u;
  var margin = max(out - p.alpha, 0.0);
  var near_sum = 0.0;
  var low_sum = 0.0;
  for (var e = 0u; e < p.inside; e++) {
    let d = dist[e];
    inside += d;
    if (out - d + p.gamma > 0.0) {
      near += 1u;
      near_sum += out - d + p.gamma;
    }
    if (p.beta - d > 0.0) {
      low += 1u;
      low_sum += p.beta - d;
    }
  }
  margin += near_sum / f32(max(near, 1u)) + low_sum / f32(max(low, 1u));
  for (var e = 0u; e < p.inside; e++) {
    let d = dist[e];
    var v = 0.0;
    if (out - d + p.gamma > 0.0) { v -= 1.0 / f32(near); }
    if (p.beta - d > 0.0) { v -= 1.0 / f32(low); }
    pull[e] = v;
  }
  pull[p.inside] = select(0.0, 1.0, near > 0u) + select(0.0, 1.0, out > p.alpha);
  var nll = 0.0;
  for (var i = 0u; i < p.count; i++) { nll += terms[i]; }
  let loss = nll + margin;
  history[2u * step] = nll;
  history[2u * step + 1u] = margin;
  progress[2] = inside / f32(p.inside);
  if (abs(progress[0] - progress[1]) <= p.still && progress[0] <= p.low) { done[0] = 1u; }
  if ((bitcast<u32>(loss) & 0x7f800000u) == 0x7f800000u) {
    flags[1] = step + 1u;
    done[0] = 1u;
  }
  progress[1] = progress[0];
  progress[0] = loss;
  flags[0] = step + 1u;
}
