/** Elementwise activations, plain and gated, with their gradients. */
import activation from "../../shaders/activation/activation.wgsl" with { type: "text" };
import activationBackward from "../../shaders/activation/activation_backward.wgsl" with { type: "text" };
import gated from "../../shaders/activation/gated.wgsl" with { type: "text" };
import gatedBackward from "../../shaders/activation/gated_backward.wgsl" with { type: "text" };
import activations from "../../shaders/lib/activations.wgsl" with { type: "text" };
import { defineKernel, type Kernel } from "../gpu/kernel.ts";

/** The activations there are: `gelu_new` is the tanh form, `gelu` the one with erf. */
export const ACTIVATIONS = ["gelu_new", "gelu", "silu", "relu", "quick_gelu"] as const;

/** WGSL of the activation `kind` as `act(x)` and its derivative `d_act(x)`. */
export const actSnippets = (kind: unknown) => [
  activations,
  `fn act(x: f32) -> f32 { return ${kind}(x); }\nfn d_act(x: f32) -> f32 { return d_${kind}(x); }`,
];

/** A kernel over n elements; its f and f' are chosen by the variant `kind`. */
const overElements = (kernel: Pick<Kernel, "name" | "source" | "bindings" | "variants">) =>
  defineKernel({
    ...kernel,
    params: { n: "u32" },
    variants: { kind: ACTIVATIONS, ...kernel.variants },
    snippets: ({ kind }) => actSnippets(kind),
  });

export const activationForward = overElements({
  name: "activation",
  source: activation,
  bindings: { x: "read f32", y: "write f32" },
});

export const activationToInput = overElements({
  name: "activation_backward",
  source: activationBackward,
  bindings: { x: "read f32", dy: "read f32", dx: "write f32" },
  variants: { ACC: [false, true] },
});

export const gatedForward = overElements({
  name: "gated",
  source: gated,
  bindings: { z: "read f32", up: "read f32", y: "write f32" },
});

export const gatedToInputs = overElements({
  name: "gated_backward",
  source: gatedBackward,
  bindings: { z: "read f32", up: "read f32", dy: "read f32", dz: "write f32", dup: "write f32" },
  variants: { ACC_GATE: [false, true], ACC_UP: [false, true] },
});
