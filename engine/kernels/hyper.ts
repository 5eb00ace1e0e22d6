/** What networks that make edits from gradients need: running moments, their blocks, and grouped low-rank maps. */
import countSource from "../../shaders/hyper/count_rows.wgsl" with { type: "text" };
import gainDotSource from "../../shaders/hyper/gain_rows_dot.wgsl" with { type: "text" };
import gainSource from "../../shaders/hyper/gain_rows.wgsl" with { type: "text" };
import keyedBackSource from "../../shaders/hyper/keyed_rows_backward.wgsl" with { type: "text" };
import keyedSource from "../../shaders/hyper/keyed_rows.wgsl" with { type: "text" };
import keptSource from "../../shaders/hyper/kept_rows.wgsl" with { type: "text" };
import maskSource from "../../shaders/hyper/mask_groups.wgsl" with { type: "text" };
import mergeSource from "../../shaders/hyper/merge_moments.wgsl" with { type: "text" };
import reluBackSource from "../../shaders/hyper/residual_relu_backward.wgsl" with { type: "text" };
import reluSource from "../../shaders/hyper/residual_relu.wgsl" with { type: "text" };
import ridgeFactorSource from "../../shaders/hyper/ridge_factor.wgsl" with { type: "text" };
import ridgeGradientSource from "../../shaders/hyper/ridge_gradient.wgsl" with { type: "text" };
import ridgeSolveSource from "../../shaders/hyper/ridge_solve.wgsl" with { type: "text" };
import standardiseSource from "../../shaders/hyper/standardise.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { reduce, ROW_WORKGROUPS } from "./reduce.ts";

/** `n` counts elements of t. */
export const maskGroupsKernel = defineKernel({
  name: "mask_groups",
  source: maskSource,
  bindings: { row_group: "read u32", key_group: "read u32", t: "update f32" },
  params: { n: "u32", keys: "u32" },
});

export const keptRowsKernel = defineKernel({
  name: "kept_rows",
  source: keptSource,
  bindings: { u: "read f32", d: "read f32", keep: "write u32" },
  params: { rows: "u32", in_width: "u32", out_width: "u32" },
});

export const mergeMomentsKernel = defineKernel({
  name: "merge_moments",
  source: mergeSource,
  bindings: {
    x: "read f32",
    keep: "read u32",
    count: "read u32",
    mean: "update f32",
    scatter: "update f32",
  },
  params: { rows: "u32", width: "u32" },
});

export const countRowsKernel = defineKernel({
  name: "count_rows",
  source: countSource,
  bindings: { keep: "read u32", count: "update u32" },
  params: { rows: "u32" },
});

/** `n` counts elements of x. */
export const standardiseKernel = defineKernel({
  name: "standardise",
  source: standardiseSource,
  bindings: {
    x: "read f32",
    keep: "read u32",
    count: "read u32",
    mean: "read f32",
    scatter: "read f32",
    h: "write f32",
  },
  params: { n: "u32", width: "u32", row: "u32", ld: "u32", first: "u32", limit: "f32" },
});

/** `n` counts elements of h. */
export const residualReluKernel = defineKernel({
  name: "residual_relu",
  source: reluSource,
  bindings: { h: "read f32", x: "read f32", s: "read f32", t: "read f32", first: "read u32", y: "write f32" },
  params: { n: "u32", width: "u32", modes: "u32" },
  variants: { AFTER: [false, true] },
});

/** One invocation an element of s, workgroups of 64. */
export const residualReluBackwardKernel = defineKernel({
  name: "residual_relu_backward",
  source: reluBackSource,
  bindings: {
    x: "read f32",
    s: "read f32",
    t: "read f32",
    first: "read u32",
    dy: "read f32",
    dx: "write f32",
    ds: "write f32",
    dt: "write f32",
  },
  params: { width: "u32", modes: "u32" },
  variants: { AFTER: [false, true] },
});

/** `n` counts elements of x. */
export const gainRowsKernel = defineKernel({
  name: "gain_rows",
  source: gainSource,
  bindings: { x: "read f32", s: "read f32", keep: "read u32", y: "write f32" },
  params: { n: "u32", width: "u32", at: "u32", alpha: "f32" },
  variants: { ACC: [false, true] },
});

/** One workgroup; `n` counts elements of a. */
export const gainRowsDotKernel = defineKernel({
  name: "gain_rows_dot",
  source: gainDotSource,
  bindings: { a: "read f32", b: "read f32", keep: "read u32", y: "update f32" },
  params: { n: "u32", width: "u32", at: "u32", alpha: "f32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [reduce],
});

/** One workgroup a row. */
export const keyedRowsKernel = defineKernel({
  name: "keyed_rows",
  source: keyedSource,
  bindings: { k: "read f32", q: "read f32", g: "read f32", y: "write f32" },
  params: { inner: "u32", outer: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [reduce],
});

export const keyedRowsBackwardKernel = defineKernel({
  name: "keyed_rows_backward",
  source: keyedBackSource,
  bindings: {
    k: "read f32",
    q: "read f32",
    g: "read f32",
    dy: "read f32",
    dq: "write f32",
    dg: "write f32",
  },
  params: { inner: "u32", outer: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [reduce],
});

/** One workgroup. */
export const ridgeFactorKernel = defineKernel({
  name: "ridge_factor",
  source: ridgeFactorSource,
  bindings: { lambda: "read f32", s: "update f32" },
  params: { n: "u32", at: "u32" },
  variants: { WG: ROW_WORKGROUPS },
});

export const ridgeSolveKernel = defineKernel({
  name: "ridge_solve",
  source: ridgeSolveSource,
  bindings: { l: "read f32", b: "read f32", x: "update f32" },
  params: { n: "u32", width: "u32" },
});

/** One workgroup. */
export const ridgeGradientKernel = defineKernel({
  name: "ridge_gradient",
  source: ridgeGradientSource,
  bindings: { a: "read f32", b: "read f32", lambda: "read f32", y: "update f32" },
  params: { n: "u32", at: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [reduce],
});
