// Attention for software drivers whose subgroups have 8 lanes; the formula and the tensors of attention.wgsl,
// in parts of four columns: q, o [Rq, H·Dh/4]   k, v [S, Hkv·Dh/4]   DIM = Dh, PARTS = Dh/4
// One workgroup is one subgroup and computes 8 rows and SHARED heads of one key head, 8 keys at a time: a lane
// a row. A lane loads one key and one value, whose columns reach all rows by shuffles with a constant lane.
// Rows that see other runs of slots than the first of them wait for a turn of their own; in a turn, rows differ
// only in how many keys they see. The others keep their sums by selection: a weight of 0 would let a NaN through.
// Why: llvmpipe serves a load lane by lane, about 60 cycles for four words a lane, and a multiply-add of eight
// rows takes one. A workgroup a row and head (as attention.wgsl has it) loads each key for one row only; here a
// load serves 8·SHARED, and nothing is reduced over lanes.
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = min(8u * wg.x + lane, p.rows - 1u);
  let head = wg.y * SHARED;
  let q0 = (row * p.heads + head) * PARTS;
  let seen = seen_keys(row, head);
  //#load
  var waiting = seen.count > 0u;
  for (var turn = 0u; turn < 8u; turn++) {
    let first = subgroupMin(select(8u, lane, waiting));
    if (first == 8u) { break; }
    let runs = SeenKeys(
      seen.column,
      subgroupShuffle(seen.shared0, first),
      subgroupShuffle(seen.sharedCount, first),
      subgroupShuffle(seen.own0, first),
      0u,
    );
    let mine = waiting && all(vec3(seen.shared0, seen.sharedCount, seen.own0)
      == vec3(runs.shared0, runs.sharedCount, runs.own0));
    let count = select(0u, seen.count, mine);
    let most = subgroupMax(count);
    for (var base = 0u; base < most; base += 8u) {
      let at = seen_key(runs, min(base + lane, most - 1u));
      //#scores
      //#weights
      //#values
    }
    waiting = waiting && !mine;
  }
  if (8u * wg.x + lane >= p.rows) { return; }
  //#store
}
