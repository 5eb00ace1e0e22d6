// One decoding step's bookkeeping, on the device so that greedy decoding needs no host: each row takes the
// token chosen for it, moves one position and one slot on, and notes the token in its history. A row at the
// last of p.maxPositions stands still.
//   next, ids, positions, slots, start [R]   history [R, capacity]: token number position − start of each row
// One invocation a row.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= p.rows) { return; }
  let token = next[row];
  let position = positions[row] + 1u;
  if (position >= p.maxPositions) { return; }
  ids[row] = token;
  positions[row] = position;
  slots[row] += 1u;
  let step = position - start[row];
  if (step < p.capacity) { history[row * p.capacity + step] = token; }
}
