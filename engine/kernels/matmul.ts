/**
 * The matrix product of GPUs, and the portable route. Software drivers with subgroups of 8 lanes use
 * `matmul_subgroup.ts`, and `matmul_few.ts` for few rows.
 */
import tiledSource from "../../shaders/matmul/matmul_tiled.wgsl" with { type: "text" };
import epilogue from "../../shaders/matmul/epilogue.wgsl" with { type: "text" };
import { defineKernel, unroll } from "../gpu/kernel.ts";
import { epilogueVariants, LOAD_B, params } from "./matmul_common.ts";

/** For GPUs and as the portable route. */
export const matmulTiled = defineKernel({
  name: "matmul_tiled",
  source: tiledSource,
  bindings: { a: "read f32", b: "read u32", bias: "read f32", residual: "read f32", c: "write f32" },
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
