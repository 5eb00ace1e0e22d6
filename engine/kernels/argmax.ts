/** The index of the largest element of each row. */
import argmax from "../../shaders/argmax/argmax_rows.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { ROW_WORKGROUPS } from "./reduce.ts";

/** One workgroup a row. */
export const rowArgmax = defineKernel({
  name: "argmax_rows",
  source: argmax,
  bindings: { x: "read f32", y: "write u32" },
  params: { rows: "u32", width: "u32" },
  variants: { WG: ROW_WORKGROUPS },
});
