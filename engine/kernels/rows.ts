/** Copies, additions and sums of whole rows. */
import addToRows from "../../shaders/rows/add_to_rows.wgsl" with { type: "text" };
import columnSumSource from "../../shaders/rows/column_sum.wgsl" with { type: "text" };
import copyRowsSource from "../../shaders/rows/copy_rows.wgsl" with { type: "text" };
import groupSumSource from "../../shaders/rows/group_sum.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

/** Gather, or scatter with SCATTER; `n` counts the elements copied. */
export const copyRows = defineKernel({
  name: "copy_rows",
  source: copyRowsSource,
  bindings: { x: "read f32", index: "read u32", y: "write f32" },
  params: { n: "u32", width: "u32" },
  variants: { SCATTER: [false, true], ACC: [false, true] },
});

export const addRows = defineKernel({
  name: "add_to_rows",
  source: addToRows,
  bindings: { delta: "read f32", index: "read u32", group: "read u32", y: "update f32" },
  params: { n: "u32", width: "u32" },
});

/** `n` counts elements of y, `count` rows of x. `index` is read with INDEXED only, `weight` with WEIGHTED. */
export const groupSum = defineKernel({
  name: "group_sum",
  source: groupSumSource,
  bindings: {
    x: "read f32",
    index: "read u32",
    group: "read u32",
    weight: "read f32",
    y: "write f32",
  },
  params: { n: "u32", width: "u32", count: "u32" },
  variants: { INDEXED: [false, true], WEIGHTED: [false, true], ACC: [false, true] },
});

/** One invocation a column, workgroups of 64. */
export const columnSum = defineKernel({
  name: "column_sum",
  source: columnSumSource,
  bindings: { x: "read f32", y: "write f32" },
  params: { rows: "u32", width: "u32" },
  variants: { ACC: [false, true] },
});
