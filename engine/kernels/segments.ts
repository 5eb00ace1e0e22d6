/** Reductions over runs of rows. */
import source from "../../shaders/rows/segment_mean.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

export const segmentMeanKernel = defineKernel({
  name: "segment_mean",
  source,
  bindings: { x: "read f32", offsets: "read u32", y: "write f32" },
  params: { segments: "u32", width: "u32" },
});
