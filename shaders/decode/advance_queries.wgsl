// What a row sees after one more token: its own run grows by one, and once it is longer than the window
// (0: none) what it sees moves on instead, the shared prefix first. queries [R, 4] as in attention.wgsl.
// One invocation a row.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= p.rows) { return; }
  let at = 4u * row;
  queries[at + 3u] += 1u;
  if (p.window > 0u && queries[at + 1u] + queries[at + 3u] > p.window) {
    if (queries[at + 1u] > 0u) {
      queries[at] += 1u;
      queries[at + 1u] -= 1u;
    } else {
      queries[at + 2u] += 1u;
      queries[at + 3u] -= 1u;
    }
  }
}
