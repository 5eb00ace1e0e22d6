/** One step of centred RMSprop. */
import rmspropSource from "../../shaders/optim/rmsprop.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

/** rest = 1 − keep; no parameter falls below `floor`. */
export const rmspropStep = defineKernel({
  name: "rmsprop",
  source: rmspropSource,
  bindings: { grad: "read f32", param: "update f32", mean: "update f32", variance: "update f32" },
  params: { n: "u32", lr: "f32", keep: "f32", rest: "f32", eps: "f32", floor: "f32" },
});
