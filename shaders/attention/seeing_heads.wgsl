// The pairs of row and head that see a live key: the rows of its range, each with the heads that share the key
// head. A pair is row·H + head; keys as in attention_dkv.wgsl.
struct SeeingHeads {
  row0: u32,
  kvHead: u32,
  heads: u32, // that share the key head
  count: u32, // of all rows
}

fn seeing_heads(key: u32, kvHead: u32) -> SeeingHeads {
  let heads = p.heads / p.kvHeads;
  let row0 = keys[2u * key];
  return SeeingHeads(row0, kvHead, heads, (keys[2u * key + 1u] - row0) * heads);
}

// The i-th of them.
fn seeing_head(seeing: SeeingHeads, i: u32) -> u32 {
  return (seeing.row0 + i / seeing.heads) * p.heads + seeing.kvHead * seeing.heads + i % seeing.heads;
}
