/** The losses of a side memory's margins. */
import source from "../../shaders/loss/margins.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

/** One invocation; `inside` counts the edit's texts, `count` the shares of the language-model loss. */
export const marginsKernel = defineKernel({
  name: "margins",
  source,
  bindings: {
    dist: "read f32",
    terms: "read f32",
    pull: "write f32",
    history: "update f32",
    progress: "update f32",
    flags: "update u32",
    done: "update u32",
  },
  params: {
    inside: "u32",
    count: "u32",
    alpha: "f32",
    beta: "f32",
    gamma: "f32",
    still: "f32",
    low: "f32",
  },
});
