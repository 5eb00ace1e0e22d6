// When each of E optimisations stops, decided on the device so that the host never waits inside the loop.
//   parts [E, p.parts]: the terms of each loss; their sum is compared with p.threshold
//   history [p.steps, E, p.parts] receives them; taken [E] the step at which an edit stopped
//   active [E]: 1 while it goes on; bad [E]: 1 + the step at which its loss was not finite
//   step [1], and gate_ [1]: 1 when nobody is active; gated dispatches then do nothing, and neither does this
//   one, which as the gate's writer cannot be gated itself
// One invocation for all: E is small, and the order is fixed.
@compute @workgroup_size(1)
fn main() {
  if (gate_[0] != 0u) { return; }
  let now = step[0];
  var anyone = 0u;
  for (var e = 0u; e < p.edits; e++) {
    var loss = 0.0;
    for (var i = 0u; i < p.parts; i++) {
      let term = terms[e * p.parts + i];
      history[(now * p.edits + e) * p.parts + i] = term;
      loss += term;
    }
    if (active_[e] != 0u) {
      taken[e] = now;
      let finite = (bitcast<u32>(loss) & 0x7f800000u) != 0x7f800000u;
      if (!finite) { bad[e] = now + 1u; }
      if (!finite || loss < p.threshold || now + 1u >= p.steps) { active_[e] = 0u; }
    }
    anyone |= active_[e];
  }
  step[0] = now + 1u;
  gate_[0] = select(1u, 0u, anyone != 0u);
}
