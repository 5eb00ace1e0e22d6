// The keys and values that a head of a row sees: a shared run of slots, then the row's own.
//   k, v and queries as in attention.wgsl; a head is PARTS wide: DIM columns, or DIM/4 parts of four columns
struct SeenKeys {
  column: u32, // where the key head starts in a slot
  shared0: u32,
  sharedCount: u32,
  own0: u32,
  count: u32, // of both runs
}

fn seen_keys(row: u32, head: u32) -> SeenKeys {
  let kvHead = head / (p.heads / p.kvHeads);
  let at = 4u * row;
  let sharedCount = queries[at + 1u];
  return SeenKeys(kvHead * PARTS, queries[at], sharedCount, queries[at + 2u], sharedCount + queries[at + 3u]);
}

// Where the j-th of them starts in k, and its value in v.
fn seen_key(seen: SeenKeys, j: u32) -> u32 {
  let slot = select(seen.own0 + j - seen.sharedCount, seen.shared0 + j, j < seen.sharedCount);
  return slot * (p.kvHeads * PARTS) + seen.column;
}
