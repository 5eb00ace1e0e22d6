// Running log-sum-exp and maximum of logits that arrive in chunks of columns, so that [rows, vocab] is never
// stored.
//   logits [R, p.cols]: columns first … first+cols of the vocabulary
//   rows [n]: the row of logits that a row of the state is about (INDEXED; else n = R and row i is row i)
//   state [n, 4]: maximum m, S1 = Σ e^(z−m), the target's logit or in KL rows S2 = Σ e^(z−m)(z − log q),
//     the column of the maximum as a number: exact below 2²⁴, the lowest among equals, 0 when all is NaN
//   targets [n]: the wanted token; rows from p.klStart on are KL rows against reference row i − klStart
//   reference [n − klStart, vocab]: log q. KL(p‖q) = S2/S1 − (m + log S1); REVERSED, S2 = Σ q (log q − z) and
//     KL(q‖p) = S2 + m + log S1
// One workgroup a row of the state, which reads its logits twice; each lane keeps its own maximum and sums,
// then a tree merges them.
const LANES: u32 = 64u;
var<workgroup> part: array<vec4<f32>, LANES>;

// Of (m, S1, S2, column).
fn merge(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  let m = max(a.x, b.x);
  let ea = exp(a.x - m);
  let eb = exp(b.x - m);
  let later = b.x > a.x || (b.x == a.x && b.w < a.w);
  let s2 = select(a.z * ea + b.z * eb, a.z + b.z, REVERSED);
  return vec4<f32>(m, a.y * ea + b.y * eb, s2, select(a.w, b.w, later));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x;
  var z0 = row * p.cols;
  if (INDEXED) { z0 = rows[row] * p.cols; }
  let isKl = row >= p.klStart;
  let ref0 = select(0u, (row - p.klStart) * p.vocab + p.first, isKl);
  var top = -1e30;
  var at = lane;
  for (var c = lane; c < p.cols; c += LANES) {
    let z = logits[z0 + c];
    if (z > top) {
      top = z;
      at = c;
    }
  }
  var s1 = 0.0;
  var s2 = 0.0;
  if (isKl) {
    for (var c = lane; c < p.cols; c += LANES) {
      let z = logits[z0 + c];
      let e = exp(z - top);
      s1 += e;
      let logQ = reference[ref0 + c];
      if (REVERSED) { s2 += exp(logQ) * (logQ - z); } else { s2 += e * (z - logQ); }
    }
  } else {
    for (var c = lane; c < p.cols; c += LANES) { s1 += exp(logits[z0 + c] - top); }
  }
  part[lane] = vec4<f32>(top, s1, s2, f32(p.first + at));
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) { part[lane] = merge(part[lane], part[lane + step]); }
    workgroupBarrier();
  }
  if (lane == 0u) {
    var mine = part[0];
    let before = vec4<f32>(state[4u * row], state[4u * row + 1u], state[4u * row + 2u], state[4u * row + 3u]);
    if (p.first > 0u) { mine = merge(before, mine); }
    if (!isKl) {
      let target_ = targets[row];
      mine.z = select(0.0, before.z, p.first > 0u);
      if (target_ >= p.first && target_ < p.first + p.cols) { mine.z = logits[z0 + target_ - p.first]; }
    }
    state[4u * row] = mine.x;
    state[4u * row + 1u] = mine.y;
    state[4u * row + 2u] = mine.z;
    state[4u * row + 3u] = mine.w;
  }
}
