/** Strided copies of column blocks. */
import source from "../../shaders/columns/copy_columns.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

export const copyColumnsKernel = defineKernel({
  name: "copy_columns",
  source,
  bindings: { source: "read f32", to: "write f32" },
  params: {
    rows: "u32",
    cols: "u32",
    fromLd: "u32",
    fromOffset: "u32",
    toLd: "u32",
    toOffset: "u32",
    gridX: "u32",
  },
});
