/** Products of one to three rows on software drivers; see the headers of their WGSL. */
import source from "../../shaders/matmul/matmul_few.wgsl" with { type: "text" };
import sourceNn from "../../shaders/matmul/matmul_few_nn.wgsl" with { type: "text" };
import epilogue from "../../shaders/matmul/epilogue.wgsl" with { type: "text" };
import { defineKernel, type Feature, unroll } from "../gpu/kernel.ts";
import { epilogueVariants, params, UNPACK4 } from "./matmul_common.ts";

/** Bits of the words that B is loaded in, four at a time. */
export type WordBits = 32 | 64;

/** Elements of B in one load of four words. */
export const stepOf = (dtype: string, bits: WordBits) => (dtype === "f32" ? 4 : 8) * bits / 32;

const featuresOf = (bits: WordBits): Feature[] =>
  bits === 64 ? ["subgroups", "wgpu-shader-int64"] : ["subgroups"];

/** The f32 values in one load of B, four at a time. */
function unpack(x: string, dtype: string, bits: WordBits): string[] {
  if (bits === 32) return UNPACK4[dtype](x);
  const words = (i: string) => `u32(${x}.${i}), u32(${x}.${i} >> 32u)`;
  return [["x", "y"], ["z", "w"]].flatMap(([i, j]) => UNPACK4[dtype](`vec4(${words(i)}, ${words(j)})`));
}

/** For `class: "cpu"` devices with subgroup size 8; K and the rows of A and B are multiples of STEP. */
const few = (bits: WordBits) =>
  defineKernel({
    name: bits === 32 ? "matmul_few" : "matmul_few_long",
    source,
    features: () => featuresOf(bits),
    bindings: {
      a: "read vec4<f32>",
      b: `read vec4<u${bits}>`,
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
    snippets: (v) => [`const STEP: u32 = ${stepOf(v.dtype as string, bits)}u;`, epilogue],
    blocks: (v) => {
      const rows = v.ROWS as number;
      const dtype = v.dtype as string;
      const parts = stepOf(dtype, bits) / 4;
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
            unroll(parts, (j) => `let w${n}_${j} = ${unpack(`x${n}`, dtype, bits)[j]};`),
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

/**
 * Loads of a lane from one row of B: a workgroup's part of a row should be 512 bytes of f32, with 256 it takes 1.7
 * times as long; narrower weights gain nothing.
 */
const loadsOf = (dtype: string) => dtype === "f32" ? 2 : 1;

/** Columns that a workgroup of {@link matmulFewNn} owns. */
export const columnsOf = (dtype: string, bits: WordBits) => 8 * loadsOf(dtype) * stepOf(dtype, bits);

/** For the same devices, with B as it is and a long K; the rows of B are multiples of STEP. */
const fewNn = (bits: WordBits) =>
  defineKernel({
    name: bits === 32 ? "matmul_few_nn" : "matmul_few_nn_long",
    source: sourceNn,
    features: () => featuresOf(bits),
    bindings: { a: "read f32", b: `read vec4<u${bits}>`, parts: "write f32" },
    params: { M: "u32", N: "u32", K: "u32", lda: "u32", ldb: "u32", aOffset: "u32", bOffset: "u32" },
    variants: { ROWS: [1, 2, 3], dtype: ["f32", "f16", "bf16"] },
    snippets: ({ dtype }) => [
      `const STEP: u32 = ${stepOf(dtype as string, bits)}u;`,
      `const LOADS: u32 = ${loadsOf(dtype as string)}u; const PIECE: u32 = ${PIECE}u;`,
    ],
    blocks: (v) => {
      const rows = v.ROWS as number;
      const dtype = v.dtype as string;
      const loads = loadsOf(dtype);
      const each = stepOf(dtype, bits) / 4, parts = each * loads;
      const cell = (line: (r: number, j: number) => string) =>
        unroll(rows, (r) => unroll(parts, (j) => line(r, j)));
      return {
        zero: cell((r, j) => `var y${r}_${j} = vec4(0.0);`),
        loads: unroll(rows, (r) => `let s${r} = a[p.aOffset + ${r}u * p.lda + mine] * inside;`),
        products: unroll(8, (i) =>
          [
            `let at${i} = (p.bOffset + min(k + ${i}u, p.K - 1u) * p.ldb + col) / STEP;`,
            unroll(loads, (l) =>
              [
                `let x${i}_${l} = b[at${i} + ${8 * l}u];`,
                unroll(each, (j) => `let w${i}_${l * each + j} = ${unpack(`x${i}_${l}`, dtype, bits)[j]};`),
              ].join("\n")),
            cell((r, j) => `y${r}_${j} += subgroupShuffle(s${r}, ${i}u) * w${i}_${j};`),
          ].join("\n")),
        store: cell((r, j) => {
          const column = `col + ${Math.floor(j / each)}u * 8u * STEP + ${4 * (j % each)}u`;
          return unroll(4, (c) => `keep(${r}u, ${column} + ${c}u, wg.y, y${r}_${j}.${"xyzw"[c]});`);
        }),
      };
    },
  });

/** By the bits of the words: 64 where the device has them and rows allow, with which a load moves twice as much. */
export const matmulFew = { 32: few(32), 64: few(64) };
/** Likewise. */
export const matmulFewNn = { 32: fewNn(32), 64: fewNn(64) };
