// The loss of a mixture of two distributions over words, row by row (SERAC's soft weighting): with log b given,
// c = softmax(z), s = e^−D and m = (1 − s) b + s c + ε,
//   rows before klStart   loss = −w log(m / Σm)[target]
//   the others            loss = w Σ b (log b − log(m / Σm)),   Σm = 1 + V ε
// base, z [rows, V]; distance, targets, weights, loss [rows]; for backward state [rows, 5] keeps logsumexp(z),
// Σ g c, Σ g b (g = −q/m with q the target or b), the target and w. One workgroup a row; z is read three times,
// base once.
@compute @workgroup_size(WG)
fn main(wg: Workgroup, @builtin(local_invocation_index) lane: u32) {
  let row = row_of(wg);
  if (row >= p.rows) { return; }
  let start = row * p.width;
  var mine = -1e30;
  for (var v = lane; v < p.width; v += WG) { mine = max(mine, z[start + v]); }
  let top = reduce_max(lane, mine);
  var sum = 0.0;
  for (var v = lane; v < p.width; v += WG) { sum += exp(z[start + v] - top); }
  let lse = top + log(reduce_sum(lane, sum));
  let s = exp(-distance[row]);
  let wanted = targets[row];
  let kl = row >= p.klStart;
  var value = 0.0;
  var toC = 0.0;
  var toB = 0.0;
  for (var v = lane; v < p.width; v += WG) {
    let logB = base[start + v];
    let b = exp(logB);
    let q = select(select(0.0, 1.0, v == wanted), b, kl);
    if (q > 0.0) {
      let c = exp(z[start + v] - lse);
      let m = (1.0 - s) * b + s * c + EPS;
      value += q * (select(0.0, logB, kl) - log(m));
      toC -= q / m * c;
      toB -= q / m * b;
    }
  }
  value = reduce_sum(lane, value);
  toC = reduce_sum(lane, toC);
  toB = reduce_sum(lane, toB);
  if (lane == 0u) {
    loss[row] = weights[row] * (value + log(1.0 + f32(p.width) * EPS));
    state[5u * row] = lse;
    state[5u * row + 1u] = toC;
    state[5u * row + 2u] = toB;
    state[5u * row + 3u] = f32(wanted);
    state[5u * row + 4u] = weights[row];
  }
}

// float32's, as the authors add it.
const EPS: f32 = 1.1920929e-7;

fn reduce_max(lane: u32, value: f32) -> f32 {
  scratch[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) { scratch[lane] = max(scratch[lane], scratch[lane + half]); }
    workgroupBarrier();
  }
  let most = scratch[0];
  workgroupBarrier();
  return most;
}
