// Elements of a packed matrix: two 16-bit numbers a word, the even element in the low half.
// A kernel's load_weight(index) is one line over these, generated for its dtype (kernels/weights.ts).
fn f16_element(word: u32, index: u32) -> f32 {
  let pair = unpack2x16float(word);
  return select(pair.x, pair.y, index % 2u == 1u);
}

fn bf16_element(word: u32, index: u32) -> f32 {
  return bitcast<f32>((word >> (16u * (index % 2u))) << 16u);
}
