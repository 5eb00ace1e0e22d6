// Sums over a workgroup of WG invocations (a power of two) by halving in workgroup memory: a fixed order,
// so the same bits every time. All invocations must call it (it has barriers) and all get the result.
var<workgroup> scratch: array<f32, WG>;

fn reduce_sum(lane: u32, value: f32) -> f32 {
  scratch[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) { scratch[lane] += scratch[lane + half]; }
    workgroupBarrier();
  }
  let total = scratch[0];
  workgroupBarrier();
  return total;
}
