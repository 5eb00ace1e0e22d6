/** Layer norm and RMS norm over rows, with their gradients. */
import norm from "../../shaders/norm/norm.wgsl" with { type: "text" };
import normBackward from "../../shaders/norm/norm_backward.wgsl" with { type: "text" };
import normWeightBackward from "../../shaders/norm/norm_weight_backward.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { row, ROW_WORKGROUPS } from "./reduce.ts";

/** One workgroup a row. CENTER is layer norm, without it RMS norm; without BIAS `bias` is not read. */
export const normForward = defineKernel({
  name: "norm",
  source: norm,
  bindings: { x: "read f32", weight: "read f32", bias: "read f32", y: "write f32", stats: "write f32" },
  params: { rows: "u32", width: "u32", eps: "f32" },
  variants: { CENTER: [false, true], BIAS: [false, true], WG: ROW_WORKGROUPS },
  snippets: () => [row],
});

/** One workgroup a row. */
export const normToInput = defineKernel({
  name: "norm_backward",
  source: normBackward,
  bindings: { x: "read f32", weight: "read f32", stats: "read f32", dy: "read f32", dx: "write f32" },
  params: { rows: "u32", width: "u32" },
  variants: { CENTER: [false, true], ACC: [false, true], WG: ROW_WORKGROUPS },
  snippets: () => [row],
});

/** One invocation a column, workgroups of 64. */
export const normToWeight = defineKernel({
  name: "norm_weight_backward",
  source: normWeightBackward,
  bindings: { x: "read f32", stats: "read f32", dy: "read f32", dw: "write f32" },
  params: { rows: "u32", width: "u32" },
  variants: { ACC: [false, true] },
});
