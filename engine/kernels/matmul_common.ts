/** What the families of the matrix product share: parameters, epilogue variants, element loads of B. */

export const params = {
  M: "u32",
  N: "u32",
  K: "u32",
  lda: "u32",
  ldb: "u32",
  ldc: "u32",
  aOffset: "u32",
  bOffset: "u32",
  cOffset: "u32",
  biasOffset: "u32",
  alpha: "f32",
} as const;

export const epilogueVariants = {
  BIAS: [false, true],
  RESIDUAL: [false, true],
  ACCUMULATE: [false, true],
} as const;

/** Elements of B seen through an array of u32 words, whatever is stored in them. */
export const LOAD_B: Record<string, string> = {
  f32: "fn load_b(i: u32) -> f32 { return bitcast<f32>(b[i]); }",
  f16: "fn load_b(i: u32) -> f32 { return unpack2x16float(b[i / 2u])[i % 2u]; }",
  bf16: "fn load_b(i: u32) -> f32 { return bitcast<f32>((b[i / 2u] >> (16u * (i % 2u))) << 16u); }",
};

/** The f32 values in one load of four words of B, four at a time. */
export const UNPACK4: Record<string, (x: string) => string[]> = {
  f32: (x) => [`bitcast<vec4<f32>>(${x})`],
  f16: (x) => ["xy", "zw"].map(([i, j]) => `vec4(unpack2x16float(${x}.${i}), unpack2x16float(${x}.${j}))`),
  bf16: (x) =>
    ["xy", "zw"].map(([i, j]) =>
      `bitcast<vec4<f32>>(vec4(${x}.${i} << 16u, ${x}.${i} & 0xffff0000u, ` +
      `${x}.${j} << 16u, ${x}.${j} & 0xffff0000u))`
    ),
};
