/** Optimiser steps, norms and projections. */
import adamSource from "../../shaders/optim/adam.wgsl" with { type: "text" };
import advanceSource from "../../shaders/optim/advance.wgsl" with { type: "text" };
import clipSource from "../../shaders/optim/clip.wgsl" with { type: "text" };
import keepBestSource from "../../shaders/optim/keep_best.wgsl" with { type: "text" };
import maskedStepSource from "../../shaders/optim/masked_step.wgsl" with { type: "text" };
import normPenaltySource from "../../shaders/optim/norm_penalty.wgsl" with { type: "text" };
import projectBallSource from "../../shaders/optim/project_ball.wgsl" with { type: "text" };
import projectLinfSource from "../../shaders/optim/project_linf.wgsl" with { type: "text" };
import rootOfSumSource from "../../shaders/optim/root_of_sum.wgsl" with { type: "text" };
import rowNorm from "../../shaders/optim/row_norm.wgsl" with { type: "text" };
import squareSumsSource from "../../shaders/optim/square_sums.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { reduce, row, ROW_WORKGROUPS } from "./reduce.ts";
import { loadWeight, WEIGHT_DTYPES } from "./weights.ts";

/** c1 = 1 − β1, c2 = 1 − β2, keep = 1 − lr·decay; `first` is the row at which the shard starts. */
export const adamStep = defineKernel({
  name: "adam",
  source: adamSource,
  bindings: {
    grad: "read f32",
    step: "read u32",
    rows_on: "read u32",
    param: "update f32",
    m: "update f32",
    v: "update f32",
  },
  params: {
    n: "u32",
    width: "u32",
    first: "u32",
    lr: "f32",
    c1: "f32",
    c2: "f32",
    log_beta1: "f32",
    log_beta2: "f32",
    eps: "f32",
    keep: "f32",
  },
  variants: { ROWS: [false, true] },
});

export const advanceStep = defineKernel({
  name: "advance",
  source: advanceSource,
  bindings: { step: "update u32" },
  params: {},
});

export const squareSums = defineKernel({
  name: "square_sums",
  source: squareSumsSource,
  bindings: { x: "read f32", sums: "write f32" },
  params: { n: "u32", offset: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [reduce],
});

export const rootOfSum = defineKernel({
  name: "root_of_sum",
  source: rootOfSumSource,
  bindings: { sums: "read f32", norm: "write f32" },
  params: { n: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [reduce],
});

export const clipToNorm = defineKernel({
  name: "clip",
  source: clipSource,
  bindings: { norm: "read f32", grad: "update f32" },
  params: { n: "u32", limit: "f32" },
});

export const linfProjection = defineKernel({
  name: "project_linf",
  source: projectLinfSource,
  bindings: { base: "read u32", param: "update f32" },
  params: { n: "u32", radius: "f32" },
  variants: { dtype: WEIGHT_DTYPES },
  snippets: ({ dtype }) => [loadWeight("base", dtype)],
});

/** One workgroup a row. */
export const rowNormPenalty = defineKernel({
  name: "norm_penalty",
  source: normPenaltySource,
  bindings: { delta: "read f32", coefficient: "read f32", loss: "update f32", grad: "update f32" },
  params: { rows: "u32", width: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [row, rowNorm],
});

/** One workgroup a row. Without ROWS `rows_on` is not there to be read. */
export const ballProjection = defineKernel({
  name: "project_ball",
  source: projectBallSource,
  bindings: { radius: "read f32", rows_on: "read u32", delta: "update f32" },
  params: { rows: "u32", width: "u32" },
  variants: { ROWS: [false, true], WG: ROW_WORKGROUPS },
  snippets: () => [row, rowNorm],
});

/** One workgroup a row. */
export const keepBestRows = defineKernel({
  name: "keep_best",
  source: keepBestSource,
  bindings: { loss: "read f32", x: "read f32", best: "update f32", kept: "update f32" },
  params: { rows: "u32", width: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [row],
});

/** `first` is the element of the whole tensor with which a shard begins, `limit` the mask's share of 2³². */
export const maskedDescent = defineKernel({
  name: "masked_step",
  source: maskedStepSource,
  bindings: { grad: "read f32", base: "read u32", param: "update f32" },
  params: {
    n: "u32",
    first: "u32",
    seed: "u32",
    limit: "u32",
    lr: "f32",
    decay: "f32",
    bound: "f32",
  },
  variants: { dtype: WEIGHT_DTYPES },
  snippets: ({ dtype }) => [loadWeight("base", dtype)],
});
