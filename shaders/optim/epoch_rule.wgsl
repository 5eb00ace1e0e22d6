// When training stops, decided on the device so that the host never waits inside the loop. An epoch is one or
// more batches in order; this runs once a batch, between its loss and its update.
//   terms [count]: shares of the batch's mean loss, one an example; penalty [1]: noted, not judged
//   history [epochs, width]: the loss of every example and, last, the penalty
//   epoch [1]; total [1]: the epoch's mean so far; bad [2]: 1 + epoch and example of a loss that is not finite
//   skip_ [1]: 1 when this batch gets no update: its loss is below p.threshold, or all p.updates were made
//   gate_ [1]: 1 when training is over: the epoch's mean is below the threshold, the last epoch ended, or a loss
//   is not finite
// One invocation: batches are small, and the order is fixed.
@compute @workgroup_size(1)
fn main() {
  if (gate_[0] != 0u) {
    skip_[0] = 1u;
    return;
  }
  let now = epoch[0];
  var loss = 0.0;
  for (var i = 0u; i < p.count; i++) {
    let term = terms[i];
    loss += term;
    history[now * p.width + p.first + i] = term * f32(p.count);
    if ((bitcast<u32>(term) & 0x7f800000u) == 0x7f800000u && bad[0] == 0u) {
      bad[0] = now + 1u;
      bad[1] = p.first + i;
    }
  }
  let mean = total[0] + loss * p.share;
  total[0] = mean;
  skip_[0] = select(0u, 1u, bad[0] != 0u || loss < p.threshold || now >= p.updates);
  if (p.closes != 0u) {
    history[now * p.width + p.width - 1u] = penalty[0];
    total[0] = 0.0;
    epoch[0] = now + 1u;
    if (mean < p.threshold || now >= p.updates) { gate_[0] = 1u; }
  }
  if (bad[0] != 0u) { gate_[0] = 1u; }
}
