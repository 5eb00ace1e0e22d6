/** What networks that read an edit as a text need: an LSTM's step, weight normalisation, gates by group. */
import gatesSource from "../../shaders/lib/gates.wgsl" with { type: "text" };
import groupBackSource from "../../shaders/hyper/group_product_backward.wgsl" with { type: "text" };
import groupSource from "../../shaders/hyper/group_product.wgsl" with { type: "text" };
import outputBackSource from "../../shaders/hyper/lstm_output_backward.wgsl" with { type: "text" };
import outputSource from "../../shaders/hyper/lstm_output.wgsl" with { type: "text" };
import stateBackSource from "../../shaders/hyper/lstm_state_backward.wgsl" with { type: "text" };
import stateSource from "../../shaders/hyper/lstm_state.wgsl" with { type: "text" };
import sigmoidGainSource from "../../shaders/hyper/sigmoid_gain.wgsl" with { type: "text" };
import softmaxSource from "../../shaders/hyper/softmax_rows.wgsl" with { type: "text" };
import tanhSource from "../../shaders/hyper/tanh.wgsl" with { type: "text" };
import weightNormBackSource from "../../shaders/hyper/weight_norm_backward.wgsl" with { type: "text" };
import weightNormSource from "../../shaders/hyper/weight_norm.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { reduce, ROW_WORKGROUPS } from "./reduce.ts";

const byRow = { variants: { WG: ROW_WORKGROUPS }, snippets: () => [reduce] };
const eitherWay = {
  variants: { WG: ROW_WORKGROUPS, BACK: [false, true] },
  snippets: () => [gatesSource, reduce],
};
const gates = { snippets: () => [gatesSource] };

/** `n` counts elements of c. */
export const lstmStateKernel = defineKernel({
  name: "lstm_state",
  source: stateSource,
  bindings: { z: "read f32", before: "read f32", live: "read u32", c: "write f32" },
  params: { n: "u32", width: "u32" },
  ...gates,
});

export const lstmStateBackwardKernel = defineKernel({
  name: "lstm_state_backward",
  source: stateBackSource,
  bindings: {
    z: "read f32",
    before: "read f32",
    live: "read u32",
    dc: "read f32",
    dz: "write f32",
    dbefore: "write f32",
  },
  params: { n: "u32", width: "u32" },
  ...gates,
});

/** `n` counts elements of h. */
export const lstmOutputKernel = defineKernel({
  name: "lstm_output",
  source: outputSource,
  bindings: { z: "read f32", c: "read f32", before: "read f32", live: "read u32", h: "write f32" },
  params: { n: "u32", width: "u32" },
  ...gates,
});

export const lstmOutputBackwardKernel = defineKernel({
  name: "lstm_output_backward",
  source: outputBackSource,
  bindings: {
    z: "read f32",
    c: "read f32",
    live: "read u32",
    dh: "read f32",
    dz: "write f32",
    dc: "write f32",
    dbefore: "write f32",
  },
  params: { n: "u32", width: "u32" },
  ...gates,
});

/** `n` counts elements. Forward does not read dy. */
export const tanhKernel = defineKernel({
  name: "tanh",
  source: tanhSource,
  bindings: { x: "read f32", dy: "read f32", y: "write f32" },
  params: { n: "u32" },
  variants: { BACK: [false, true] },
  ...gates,
});

/** One workgroup a row. Forward does not read dy. */
export const softmaxRowsKernel = defineKernel({
  name: "softmax_rows",
  source: softmaxSource,
  bindings: { x: "read f32", dy: "read f32", y: "write f32" },
  params: { width: "u32" },
  ...eitherWay,
});

/** One workgroup a row. */
export const weightNormKernel = defineKernel({
  name: "weight_norm",
  source: weightNormSource,
  bindings: { v: "read f32", g: "read f32", w: "write f32" },
  params: { width: "u32" },
  ...byRow,
});

export const weightNormBackwardKernel = defineKernel({
  name: "weight_norm_backward",
  source: weightNormBackSource,
  bindings: { v: "read f32", g: "read f32", dw: "read f32", dv: "write f32", dg: "write f32" },
  params: { width: "u32" },
  ...byRow,
});

/** `n` counts elements of x. */
export const groupProductKernel = defineKernel({
  name: "group_product",
  source: groupSource,
  bindings: { x: "read f32", s: "read f32", group: "read u32", y: "write f32" },
  params: { n: "u32", width: "u32" },
});

/** `n` counts elements of s. */
export const groupProductBackwardKernel = defineKernel({
  name: "group_product_backward",
  source: groupBackSource,
  bindings: { dy: "read f32", x: "read f32", group: "read u32", ds: "write f32" },
  params: { n: "u32", rows: "u32", width: "u32" },
});

/** One workgroup a row. Forward does not read dy. */
export const sigmoidGainKernel = defineKernel({
  name: "sigmoid_gain",
  source: sigmoidGainSource,
  bindings: { x: "read f32", e: "read f32", dy: "read f32", y: "write f32", de: "write f32" },
  params: { width: "u32", alpha: "f32" },
  ...eitherWay,
});
