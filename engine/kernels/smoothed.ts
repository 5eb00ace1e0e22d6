/** Smoothed answers as distributions. */
import smoothedSource from "../../shaders/loss/smoothed_targets.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

export const smoothedTargetsKernel = defineKernel({
  name: "smoothed_targets",
  source: smoothedSource,
  bindings: { target_ids: "read u32", y: "write f32" },
  params: { n: "u32", vocab: "u32", on: "f32", off: "f32" },
});
