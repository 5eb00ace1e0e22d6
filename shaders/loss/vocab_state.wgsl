// Running log-sum-exp of logits that arrive in chunks of columns, so that [rows, vocab] is never stored.
//   logits [R, p.cols]: columns first … first+cols of the vocabulary
//   state [R, 4]: maximum m, S1 = Σ e^(z−m), S2 = Σ e^(z−m)(z − log q), the target's logit
//   targets [R]: the wanted token; rows from p.klStart on are KL rows against reference row r − klStart
//   reference [R − klStart, vocab]: log q. KL(p‖q) = S2/S1 − (m + log S1)
// One workgroup a row; each lane keeps its own maximum and sums, then a tree merges them.
const LANES: u32 = 64u;
var<workgroup> part: array<vec3<f32>, LANES>;

fn merge(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
  let m = max(a.x, b.x);
  let ea = exp(a.x - m);
  let eb = exp(b.x - m);
  return vec3<f32>(m, a.y * ea + b.y * eb, a.z * ea + b.z * eb);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x;
  let isKl = row >= p.klStart;
  let ref0 = select(0u, (row - p.klStart) * p.vocab + p.first, isKl);
  var top = -1e30;
  for (var c = lane; c < p.cols; c += LANES) { top = max(top, logits[row * p.cols + c]); }
  var s1 = 0.0;
  var s2 = 0.0;
  if (isKl) {
    for (var c = lane; c < p.cols; c += LANES) {
      let z = logits[row * p.cols + c];
      let e = exp(z - top);
      s1 += e;
      s2 += e * (z - reference[ref0 + c]);
    }
  } else {
    for (var c = lane; c < p.cols; c += LANES) { s1 += exp(logits[row * p.cols + c] - top); }
  }
  part[lane] = vec3<f32>(top, s1, s2);
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) { part[lane] = merge(part[lane], part[lane + step]); }
    workgroupBarrier();
  }
  if (lane == 0u) {
    var mine = part[0];
    var hit = 0.0;
    if (p.first > 0u) {
      mine = merge(mine, vec3<f32>(state[4u * row], state[4u * row + 1u], state[4u * row + 2u]));
      hit = state[4u * row + 3u];
    }
    let target_ = targets[row];
    if (!isKl && target_ >= p.first && target_ < p.first + p.cols) {
      hit = logits[row * p.cols + target_ - p.first];
    }
    state[4u * row] = mine.x;
    state[4u * row + 1u] = mine.y;
    state[4u * row + 2u] = mine.z;
    state[4u * row + 3u] = hit;
  }
}
