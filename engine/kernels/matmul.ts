/**
 * Matrix multiplication, one operation in three layouts and two families: `matmul_subgroup` for software
 * drivers with subgroups of 8 lanes, `matmul_tiled` for everything else. B may be packed f16 or bf16.
 */
import subgroupSource from "../../shaders/matmul/matmul_subgroup.wgsl" with { type: "text" };
import tiledSource from "../../shaders/matmul/matmul_tiled.wgsl" with { type: "text" };
import epilogue from "../../shaders/matmul/epilogue.wgsl" with { type: "text" };
import { type Binding, defineKernel, unroll, type Variant } from "../gpu/kernel.ts";

const params = {
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

const epilogueVariants = { BIAS: [false, true], RESIDUAL: [false, true], ACCUMULATE: [false, true] } as const;

/** Elements of B seen through an array of u32 words, whatever is stored in them. */
const LOAD_B: Record<string, string> = {
  f32: "fn load_b(i: u32) -> f32 { return bitcast<f32>(b[i]); }",
  f16: "fn load_b(i: u32) -> f32 { return unpack2x16float(b[i / 2u])[i % 2u]; }",
  bf16: "fn load_b(i: u32) -> f32 { return bitcast<f32>((b[i / 2u] >> (16u * (i % 2u))) << 16u); }",
};

const bindings: Record<string, Binding> = {
  a: "read f32",
  b: "read u32",
  bias: "read f32",
  residual: "read f32",
  c: "write f32",
};

/** The two values of a packed word. */
const UNPACK: Record<string, (word: string) => [string, string]> = {
  f16: (word) => [`unpack2x16float(${word}).x`, `unpack2x16float(${word}).y`],
  bf16: (word) => [`bitcast<f32>(${word} << 16u)`, `bitcast<f32>(${word} & 0xffff0000u)`],
};

/** The unrolled text of the subgroup kernel; see the header of its WGSL. */
function subgroupBlocks(v: Variant): Record<string, string> {
  const rows = v.ROWS as number;
  const cols = v.COLS as number;
  const nt = v.layout === "nt";
  const tn = v.layout === "tn";
  const packed = v.dtype !== "f32";
  // Packed nn weights: a word holds two neighbouring columns, so a lane owns pairs of columns.
  const pairs = packed && !nt;
  const column = (c: number) => pairs ? `2u * lane + ${16 * (c >> 1)}u + ${c & 1}u` : `lane + ${8 * c}u`;
  const each = (line: (r: number) => string) => unroll(rows, line);
  const eachCol = (line: (c: number) => string) => unroll(cols, line);
  const cell = (line: (r: number, c: number) => string) => each((r) => eachCol((c) => line(r, c)));
  const addresses = [
    eachCol((c) => `let n${c} = min(col0 + ${column(c)}, p.N - 1u);`),
    eachCol((c) => `let b${c} = p.bOffset + n${c}${nt ? " * p.ldb" : ""};`),
    each((r) => `let a${r} = p.aOffset + min(row0 + ${r}u, p.M - 1u)${tn ? "" : " * p.lda"};`),
  ].join("\n");
  const element = (c: number, k: string) => nt ? `b${c} + ${k}` : `b${c} + (${k}) * p.ldb`;
  const plain = () => eachCol((c) => unroll(8, (i) => `let w${c}_${i} = load_b(${element(c, `k + ${i}u`)});`));
  const packedNt = () =>
    eachCol((c) =>
      unroll(4, (j) => {
        const [lo, hi] = UNPACK[v.dtype as string](`x${c}_${j}`);
        return `let x${c}_${j} = b[(b${c} + k) / 2u + ${j}u];\n` +
          `let w${c}_${2 * j} = ${lo}; let w${c}_${2 * j + 1} = ${hi};`;
      })
    );
  const packedPairs = () =>
    unroll(cols / 2, (h) =>
      unroll(8, (i) => {
        const [lo, hi] = UNPACK[v.dtype as string](`x${h}_${i}`);
        return `let x${h}_${i} = b[(b${2 * h} + (k + ${i}u) * p.ldb) / 2u];\n` +
          `let w${2 * h}_${i} = ${lo}; let w${2 * h + 1}_${i} = ${hi};`;
      }));
  const products = each((r) =>
    [
      `let v${r} = a[a${r} + ${tn ? "(k + lane) * p.lda" : "k + lane"}];`,
      unroll(8, (i) =>
        [`let s${r}_${i} = subgroupBroadcast(v${r}, ${i}u);`,
          eachCol((c) => `y${r}_${c} += s${r}_${i} * w${c}_${i};`)].join(" ")),
    ].join("\n")
  );
  return {
    addresses,
    zero: cell((r, c) => `var y${r}_${c} = 0.0;`),
    weights: !packed ? plain() : nt ? packedNt() : packedPairs(),
    products,
    tail: [
      eachCol((c) => `let w${c} = load_b(${element(c, "k")});`),
      each((r) => `let s${r} = a[a${r} + ${tn ? "k * p.lda" : "k"}];`),
      cell((r, c) => `y${r}_${c} += s${r} * w${c};`),
    ].join("\n"),
    store: cell((r, c) => `store_c(row0 + ${r}u, col0 + ${column(c)}, y${r}_${c});`),
  };
}

/** For `class: "cpu"` devices with subgroup size 8. Packed B needs even `ldb` and `bOffset`. */
export const matmulSubgroup = defineKernel({
  name: "matmul_subgroup",
  source: subgroupSource,
  bindings,
  params,
  variants: {
    layout: ["nt", "nn", "tn"],
    dtype: ["f32", "f16", "bf16"],
    ROWS: [16, 1, 4, 8],
    COLS: [2, 4],
    ...epilogueVariants,
  },
  snippets: (v) => [LOAD_B[v.dtype as string], epilogue],
  blocks: subgroupBlocks,
  features: () => ["subgroups"],
});

/** For GPUs and as the portable route. */
export const matmulTiled = defineKernel({
  name: "matmul_tiled",
  source: tiledSource,
  bindings,
  params,
  variants: {
    A_T: [false, true],
    B_T: [false, true],
    dtype: ["f32", "f16", "bf16"],
    TM: [4, 1, 2, 8],
    TN: [4, 1, 2, 8],
    ...epilogueVariants,
  },
  snippets: (v) => [LOAD_B[v.dtype as string], epilogue],
  blocks: (v) => {
    const tm = v.TM as number, tn = v.TN as number;
    const cell = (line: (r: number, c: number) => string) => unroll(tm, (r) => unroll(tn, (c) => line(r, c)));
    return {
      zero: cell((r, c) => `var y${r}_${c} = 0.0;`),
      products: [
        unroll(tm, (r) => `let s${r} = tileA[k][y + ${16 * r}u];`),
        unroll(tn, (c) => `let w${c} = tileB[k][x + ${16 * c}u];`),
        cell((r, c) => `y${r}_${c} += s${r} * w${c};`),
      ].join("\n"),
      store: cell((r, c) => `store_c(row0 + y + ${16 * r}u, col0 + x + ${16 * c}u, y${r}_${c});`),
    };
  },
});
