/** Products of one to three rows on software drivers; see the headers of their WGSL. */
import source from "../../shaders/matmul/matmul_few.wgsl" with { type: "text" };
import sourceNn from "../../shaders/matmul/matmul_few_nn.wgsl" with { type: "text" };
import epilogue from "../../shaders/matmul/epilogue.wgsl" with { type: "text" };
import { defineKernel, unroll } from "../gpu/kernel.ts";
import { epilogueVariants, params, UNPACK4 } from "./matmul_common.ts";

/** Elements of B in one load of four words. */
export const stepOf = (dtype: string) => dtype === "f32" ? 4 : 8;

/** For `class: "cpu"` devices with subgroup size 8; K and the rows of A and B are multiples of STEP. */
export const matmulFew = defineKernel({
  name: "matmul_few",
  source,
  bindings: {
    a: "read vec4<f32>",
    b: "read vec4<u32>",
    bias: "read f32",
    residual: "read f32",
    c: "write f32",
  },
  params,
  variants: {
    ROWS: [1, 2, 3],
    dtype: ["f32", "f16", "bf16"],
    ...epilogueVariants,
  },
  snippets: (v) => [`const STEP: u32 = ${stepOf(v.dtype as string)}u;`, epilogue],
  blocks: (v) => {
    const rows = v.ROWS as number;
    const parts = stepOf(v.dtype as string) / 4;
    const unpacked = UNPACK4[v.dtype as string];
    const cell = (line: (r: number, n: number) => string) =>
      unroll(rows, (r) => unroll(8, (n) => line(r, n)));
    return {
      addresses: [
        unroll(rows, (r) => `let a${r} = p.aOffset + ${r}u * p.lda;`),
        unroll(8, (n) => `let b${n} = p.bOffset + min(col0 + ${n}u, p.N - 1u) * p.ldb;`),
      ].join("\n"),
      zero: cell((r, n) => `var y${r}_${n} = 0.0;`),
      loads: unroll(
        rows,
        (r) => unroll(parts, (j) => `let s${r}_${j} = a[(a${r} + at) / 4u + ${j}u] * inside;`),
      ),
      products: unroll(8, (n) =>
        [
          `let x${n} = b[(b${n} + at) / STEP];`,
          unroll(parts, (j) => `let w${n}_${j} = ${unpacked(`x${n}`)[j]};`),
          unroll(rows, (r) => unroll(parts, (j) => `y${r}_${n} += dot(s${r}_${j}, w${n}_${j});`)),
        ].join("\n")),
      store: unroll(rows, (r) =>
        [
          `var z${r} = subgroupAdd(y${r}_0);`,
          unroll(7, (n) => `z${r} = select(z${r}, subgroupAdd(y${r}_${n + 1}), lane == ${n + 1}u);`),
          `store_c(${r}u, col0 + lane, z${r});`,
        ].join("\n")),
    };
  },
});

/** Rows of B that a workgroup of {@link matmulFewNn} sums up, a multiple of 8. */
export const PIECE = 256;

/** For the same devices, with B as it is and a long K; the rows of B are multiples of STEP. */
export const matmulFewNn = defineKernel({
  name: "matmul_few_nn",
  source: sourceNn,
  bindings: { a: "read f32", b: "read vec4<u32>", parts: "write f32" },
  params: { M: "u32", N: "u32", K: "u32", lda: "u32", ldb: "u32", aOffset: "u32", bOffset: "u32" },
  variants: { ROWS: [1, 2, 3], dtype: ["f32", "f16", "bf16"] },
  snippets: (v) => [`const STEP: u32 = ${stepOf(v.dtype as string)}u; const PIECE: u32 = ${PIECE}u;`],
  blocks: (v) => {
    const rows = v.ROWS as number;
    const parts = stepOf(v.dtype as string) / 4;
    const unpacked = UNPACK4[v.dtype as string];
    const cell = (line: (r: number, j: number) => string) =>
      unroll(rows, (r) => unroll(parts, (j) => line(r, j)));
    return {
      zero: cell((r, j) => `var y${r}_${j} = vec4(0.0);`),
      loads: unroll(rows, (r) => `let s${r} = a[p.aOffset + ${r}u * p.lda + mine] * inside;`),
      products: unroll(8, (i) =>
        [
          `let x${i} = b[(p.bOffset + min(k + ${i}u, p.K - 1u) * p.ldb + col) / STEP];`,
          unroll(parts, (j) => `let w${i}_${j} = ${unpacked(`x${i}`)[j]};`),
          cell((r, j) => `y${r}_${j} += subgroupShuffle(s${r}, ${i}u) * w${i}_${j};`),
        ].join("\n")),
      store: cell((r, j) =>
        unroll(4, (c) => `keep(${r}u, col + ${4 * j + c}u, wg.y, y${r}_${j}.${"xyzw"[c]});`)
      ),
    };
  },
});
