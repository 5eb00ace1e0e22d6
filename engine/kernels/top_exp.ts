/** The mean of the largest exponentials of a list, with its gradient: T-Patcher's losses. */
import topExpSource from "../../shaders/loss/top_exp.wgsl" with { type: "text" };
import topExpBackwardSource from "../../shaders/loss/top_exp_backward.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { reduce, ROW_WORKGROUPS } from "./reduce.ts";

/** One workgroup. `shift` is read with SHIFT only. */
export const topExpForward = defineKernel({
  name: "top_exp",
  source: topExpSource,
  bindings: { x: "read f32", shift: "read f32", weight: "write f32", value: "update f32" },
  params: {
    n: "u32",
    cols: "u32",
    k: "u32",
    xStep: "u32",
    shiftStep: "u32",
    sign: "f32",
    c: "f32",
    scale: "f32",
  },
  variants: { WG: ROW_WORKGROUPS, SHIFT: [false, true] },
  snippets: () => [reduce],
});

/** One invocation an element, workgroups of 64; `size` counts elements of d. */
export const topExpToInputs = defineKernel({
  name: "top_exp_backward",
  source: topExpBackwardSource,
  bindings: { weight: "read f32", d: "write f32" },
  params: { size: "u32", n: "u32", cols: "u32", step: "u32", sign: "f32" },
  variants: { SHIFT: [false, true], ACC: [false, true] },
});
