/** Choosing tokens by chance. */
import source from "../../shaders/sample/sample_top_k.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { ROW_WORKGROUPS } from "./reduce.ts";

/** Tokens that a draw can choose from, at most. */
export const MAX_TOP_K = 64;

/** One workgroup a row. */
export const sampleTopKKernel = defineKernel({
  name: "sample_top_k",
  source,
  bindings: {
    logits: "read f32",
    uniforms: "read f32",
    positions: "read u32",
    start: "read u32",
    y: "write u32",
  },
  params: { rows: "u32", width: "u32", k: "u32", steps: "u32", sharpness: "f32", share: "f32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [`const MOST: u32 = ${MAX_TOP_K}u;`],
});
