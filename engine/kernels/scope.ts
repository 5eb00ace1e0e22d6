/** The losses of SERAC: of a scope classifier over pairs of embeddings, and of a mixture of two models. */
import source from "../../shaders/loss/scope_loss.wgsl" with { type: "text" };
import backwardSource from "../../shaders/loss/scope_loss_backward.wgsl" with { type: "text" };
import mixtureSource from "../../shaders/loss/mixture_loss.wgsl" with { type: "text" };
import mixtureBackwardSource from "../../shaders/loss/mixture_loss_backward.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { row, ROW_WORKGROUPS } from "./reduce.ts";

export const scopeLossKernel = defineKernel({
  name: "scope_loss",
  source,
  bindings: {
    a: "read f32",
    b: "read f32",
    positive: "read u32",
    weights: "read f32",
    distance: "write f32",
    loss: "write f32",
  },
  params: { pairs: "u32", width: "u32" },
});

export const scopeLossBackward = defineKernel({
  name: "scope_loss_backward",
  source: backwardSource,
  bindings: {
    a: "read f32",
    b: "read f32",
    positive: "read u32",
    weights: "read f32",
    distance: "read f32",
    dloss: "read f32",
    da: "write f32",
    db: "write f32",
  },
  params: { pairs: "u32", width: "u32" },
  variants: { ACC_A: [false, true], ACC_B: [false, true] },
});

/** One workgroup a row. */
export const mixtureLossKernel = defineKernel({
  name: "mixture_loss",
  source: mixtureSource,
  bindings: {
    base: "read f32",
    z: "read f32",
    distance: "read f32",
    targets: "read u32",
    weights: "read f32",
    loss: "write f32",
    state: "write f32",
  },
  params: { rows: "u32", width: "u32", klStart: "u32" },
  variants: { WG: ROW_WORKGROUPS },
  snippets: () => [row],
});

/** One workgroup a row. */
export const mixtureLossBackward = defineKernel({
  name: "mixture_loss_backward",
  source: mixtureBackwardSource,
  bindings: {
    base: "read f32",
    z: "read f32",
    distance: "read f32",
    state: "read f32",
    dloss: "read f32",
    dz: "write f32",
    ddistance: "write f32",
  },
  params: { rows: "u32", width: "u32", klStart: "u32" },
  variants: { ACC_Z: [false, true], ACC_D: [false, true], WG: ROW_WORKGROUPS },
  snippets: () => [row],
});
