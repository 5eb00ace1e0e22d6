/** One step of Adafactor on a matrix, in four parts: moments of columns, of rows, the step's size, the step. */
import columnsSource from "../../shaders/optim/adafactor_columns.wgsl" with { type: "text" };
import rowsSource from "../../shaders/optim/adafactor_rows.wgsl" with { type: "text" };
import scaleSource from "../../shaders/optim/adafactor_scale.wgsl" with { type: "text" };
import stepSource from "../../shaders/optim/adafactor_step.wgsl" with { type: "text" };
import keptMoment from "../../shaders/optim/kept_moment.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { reduce, row, ROW_WORKGROUPS } from "./reduce.ts";

const moving = { rows: "u32", width: "u32", decay: "f32", eps: "f32" } as const;

/** An invocation a column. */
export const adafactorColumns = defineKernel({
  name: "adafactor_columns",
  source: columnsSource,
  bindings: { grad: "read f32", step: "read u32", columns: "update f32" },
  params: moving,
  snippets: () => [keptMoment],
});

/** One workgroup a row. */
export const adafactorRows = defineKernel({
  name: "adafactor_rows",
  source: rowsSource,
  bindings: {
    grad: "read f32",
    step: "read u32",
    columns: "read f32",
    moments: "update f32",
    share: "write f32",
  },
  params: moving,
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [row, keptMoment],
});

/** One workgroup. */
export const adafactorScale = defineKernel({
  name: "adafactor_scale",
  source: scaleSource,
  bindings: { moments: "read f32", share: "read f32", scale: "write f32" },
  params: { rows: "u32", width: "u32", lr: "f32", clip: "f32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [reduce],
});

export const adafactorStep = defineKernel({
  name: "adafactor_step",
  source: stepSource,
  bindings: {
    grad: "read f32",
    moments: "read f32",
    columns: "read f32",
    scale: "read f32",
    param: "update f32",
  },
  params: { n: "u32", width: "u32" },
});
