/** The stopping rule of training, and what prunes values by their importance. */
import epochRuleSource from "../../shaders/optim/epoch_rule.wgsl" with { type: "text" };
import keepLargestSource from "../../shaders/optim/keep_largest.wgsl" with { type: "text" };
import sensitivitySource from "../../shaders/optim/sensitivity.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

/** One invocation; `share` is the batch's part of the examples, `closes` 1 for the epoch's last batch. */
export const epochRuleKernel = defineKernel({
  name: "epoch_rule",
  source: epochRuleSource,
  bindings: {
    terms: "read f32",
    penalty: "read f32",
    history: "update f32",
    epoch: "update u32",
    total: "update f32",
    bad: "update u32",
    skip_: "update u32",
    gate_: "update u32",
  },
  params: {
    first: "u32",
    count: "u32",
    width: "u32",
    updates: "u32",
    closes: "u32",
    share: "f32",
    threshold: "f32",
  },
});

export const sensitivityKernel = defineKernel({
  name: "sensitivity",
  source: sensitivitySource,
  bindings: { param: "read f32", grad: "read f32", mean: "update f32", spread: "update f32" },
  params: { n: "u32", beta1: "f32", beta2: "f32" },
});

/** One invocation a value, workgroups of 64; `steps` is the length of `cuts`. */
export const keepLargestKernel = defineKernel({
  name: "keep_largest",
  source: keepLargestSource,
  bindings: {
    scores: "read f32",
    cuts: "read u32",
    clock: "read u32",
    kept: "update u32",
    values: "update f32",
  },
  params: { n: "u32", steps: "u32" },
});
