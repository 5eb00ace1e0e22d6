// out[r, c] = logits[r, c] − logsumexp(logits[r, :]), rows [R, vocab]. One workgroup a row.
const LANES: u32 = 64u;
var<workgroup> part: array<f32, LANES>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = wg.x * p.cols;
  var top = -1e30;
  for (var c = lane; c < p.cols; c += LANES) { top = max(top, logits[at + c]); }
  part[lane] = top;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) { part[lane] = max(part[lane], part[lane + step]); }
    workgroupBarrier();
  }
  top = part[0];
  workgroupBarrier();
  var sum = 0.0;
  for (var c = lane; c < p.cols; c += LANES) { sum += exp(logits[at + c] - top); }
  part[lane] = sum;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) { part[lane] += part[lane + step]; }
    workgroupBarrier();
  }
  let lse = top + log(part[0]);
  for (var c = lane; c < p.cols; c += LANES) { out[at + c] = logits[at + c] - lse; }
}
