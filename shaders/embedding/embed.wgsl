// y[r] (+)= table[ids[r]] for the ids that lie in this shard of the table, rows [first, first + count).
// y [rows, width] f32, table [count, width] f32, f16 or bf16, ids [rows]. An invocation computes one
// element of y; every table row in use is read once a mention, y is written once over all shards.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * grid.x + wg.x) * 256u + lane;
  if (i >= p.n) { return; }
  let id = ids[i / p.width];
  if (id < p.first || id - p.first >= p.count) { return; }
  var v = load_weight((id - p.first) * p.width + i % p.width);
  if (ACC) { v += y[i]; }
  y[i] = v;
}
