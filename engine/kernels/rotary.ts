/** Rotary position embedding. */
import rotary from "../../shaders/rotary/rotary.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

/** `pairs` is rows·heads·headDim/2; `direction` 1 turns forward, −1 back. */
export const rotaryTurn = defineKernel({
  name: "rotary",
  source: rotary,
  bindings: { x: "read f32", table: "read f32", positions: "read u32", y: "write f32" },
  params: { pairs: "u32", heads: "u32", head_dim: "u32", rotary_dim: "u32", direction: "f32" },
  variants: { INTERLEAVED: [false, true], ACC: [false, true] },
});
