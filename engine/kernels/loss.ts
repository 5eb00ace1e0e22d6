/** Vocabulary-sized losses over chunks of columns. */
import stateSource from "../../shaders/loss/vocab_state.wgsl" with { type: "text" };
import lossSource from "../../shaders/loss/vocab_loss.wgsl" with { type: "text" };
import scoresSource from "../../shaders/loss/vocab_scores.wgsl" with { type: "text" };
import gradSource from "../../shaders/loss/vocab_grad.wgsl" with { type: "text" };
import logSoftmaxSource from "../../shaders/loss/log_softmax.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

export const vocabState = defineKernel({
  name: "vocab_state",
  source: stateSource,
  bindings: {
    logits: "read f32",
    rows: "read u32",
    targets: "read u32",
    reference: "read f32",
    state: "write f32",
  },
  params: { cols: "u32", first: "u32", vocab: "u32", klStart: "u32" },
  variants: { INDEXED: [false, true], REVERSED: [false, true] },
});

export const vocabLossKernel = defineKernel({
  name: "vocab_loss",
  source: lossSource,
  bindings: { state: "read f32", weights: "read f32", loss: "write f32" },
  params: { rows: "u32", klStart: "u32" },
  variants: { REVERSED: [false, true] },
});

export const vocabScoresKernel = defineKernel({
  name: "vocab_scores",
  source: scoresSource,
  bindings: { state: "read f32", logProbs: "write f32", best: "write u32" },
  params: { rows: "u32" },
});

export const vocabGrad = defineKernel({
  name: "vocab_grad",
  source: gradSource,
  bindings: {
    state: "read f32",
    targets: "read u32",
    weights: "read f32",
    reference: "read f32",
    logits: "update f32",
  },
  params: { cols: "u32", first: "u32", vocab: "u32", klStart: "u32" },
  variants: { REVERSED: [false, true] },
});

export const logSoftmaxKernel = defineKernel({
  name: "log_softmax",
  source: logSoftmaxSource,
  bindings: { logits: "read f32", out: "write f32" },
  params: { cols: "u32" },
});
