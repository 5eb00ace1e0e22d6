// The mean of the k largest exp(u), and what each element weighs in it:
//   u[e] = sign·x[e·xStep] + c − shift[(e mod cols)·shiftStep]      e < n
//   value (+)= scale/k · Σ exp(u) over the k largest u; weight[e] = scale/k · exp(u[e]) for them, else 0
// Elements equal to the k-th largest share its places. exp is bounded at u = 30. One workgroup: the k-th largest
// is found bit by bit in the order of floats as integers, 32 counts over all elements.
var<workgroup> counts: array<u32, WG>;

fn element(e: u32) -> f32 {
  var u = p.sign * x[e * p.xStep] + p.c;
  if (SHIFT) { u -= shift[(e % p.cols) * p.shiftStep]; }
  return u;
}

// Larger floats are larger integers.
fn ordered(v: f32) -> u32 {
  let bits = bitcast<u32>(v);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn count_sum(lane: u32, mine: u32) -> u32 {
  counts[lane] = mine;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) { counts[lane] += counts[lane + half]; }
    workgroupBarrier();
  }
  let total = workgroupUniformLoad(&counts[0]);
  return total;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  var kth = 0u;
  for (var bit = 0x80000000u; bit > 0u; bit = bit >> 1u) {
    var mine = 0u;
    for (var e = lane; e < p.n; e += WG) { mine += select(0u, 1u, ordered(element(e)) >= (kth | bit)); }
    if (count_sum(lane, mine) >= p.k) { kth |= bit; }
  }
  var above = 0u;
  var equal = 0u;
  for (var e = lane; e < p.n; e += WG) {
    let o = ordered(element(e));
    above += select(0u, 1u, o > kth);
    equal += select(0u, 1u, o == kth);
  }
  let all_above = count_sum(lane, above);
  let all_equal = count_sum(lane, equal);
  let share = f32(p.k - all_above) / f32(all_equal);
  var sum = 0.0;
  for (var e = lane; e < p.n; e += WG) {
    let u = element(e);
    let o = ordered(u);
    var w = p.scale / f32(p.k) * exp(min(u, 30.0));
    if (o < kth) { w = 0.0; } else if (o == kth) { w *= share; }
    weight[e] = w;
    sum += w;
  }
  let total = reduce_sum(lane, sum);
  if (lane == 0u) { value[0] += total; }
}
