/** The stopping rules of an optimisation loop that the host does not watch. */
import source from "../../shaders/optim/stop_rule.wgsl" with { type: "text" };
import sureSource from "../../shaders/optim/sure_rule.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

export const stopRuleKernel = defineKernel({
  name: "stop_rule",
  source,
  bindings: {
    terms: "read f32",
    active_: "update u32",
    taken: "update u32",
    bad: "update u32",
    history: "update f32",
    step: "update u32",
    gate_: "update u32",
  },
  params: { edits: "u32", parts: "u32", steps: "u32", threshold: "f32" },
});

export const sureRuleKernel = defineKernel({
  name: "sure_rule",
  source: sureSource,
  bindings: {
    best: "read u32",
    wanted: "read u32",
    edit: "read u32",
    terms: "read f32",
    factor: "update f32",
    active_: "update u32",
  },
  params: { rows: "u32", edits: "u32", parts: "u32", factor: "f32", kl: "f32" },
});
