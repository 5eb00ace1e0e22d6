// step[0] += 1: the optimiser's clock lives on the device, so that a replayed plan needs no host write.
@compute @workgroup_size(1)
fn main() {
  step[0] += 1u;
}
