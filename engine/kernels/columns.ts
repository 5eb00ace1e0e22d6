/** Kernels over blocks of columns: strided copies, scales and products column by column. */
import columnDotSource from "../../shaders/columns/column_dot.wgsl" with { type: "text" };
import source from "../../shaders/columns/copy_columns.wgsl" with { type: "text" };
import scaleColumnsSource from "../../shaders/columns/scale_columns.wgsl" with { type: "text" };
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

/** `n` counts elements. */
export const scaleColumnsKernel = defineKernel({
  name: "scale_columns",
  source: scaleColumnsSource,
  bindings: { x: "read f32", s: "read f32", y: "write f32" },
  params: { n: "u32", cols: "u32", first: "u32", alpha: "f32" },
  variants: { ACC: [false, true] },
});

/** One invocation a column, workgroups of 64. */
export const columnDotKernel = defineKernel({
  name: "column_dot",
  source: columnDotSource,
  bindings: { a: "read f32", b: "read f32", y: "write f32" },
  params: { rows: "u32", cols: "u32", first: "u32", alpha: "f32" },
  variants: { ACC: [false, true] },
});
