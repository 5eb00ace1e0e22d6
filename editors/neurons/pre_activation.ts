/**
 * What goes into the activation function of an MLP: the output of its first linear map, of the gate where
 * there is one. EleutherAI's code and the editing tables' KN call its coordinates neurons (guide section
 * 11.2).
 */
import type { LlamaConfig } from "../../engine/io/config.ts";
import { activationOf, type Model, tensor, weight } from "../../engine/models/model.ts";
import { activation, gated } from "../../engine/ops/activation.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { linear } from "../../engine/ops/linear.ts";
import { layerNorm, rmsNorm } from "../../engine/ops/norm.ts";
import type { Tensor } from "../../engine/tensor/tensor.ts";

/** The pre-activation [R, F], and what a gated MLP multiplies with. */
export interface PreActivation {
  z: Tensor;
  up?: Tensor;
}

/** The pre-activation of a layer's MLP for rows of the residual stream that enters it, [R, D]. */
export function preActivation(ctx: Ctx, model: Model, layer: number, stream: Tensor): PreActivation {
  const at = `layer.${layer}`;
  const norm = tensor(model, `${at}.mlp.norm`), up = weight(model, `${at}.mlp.up`);
  if (model.config.type === "gpt2") {
    const x = layerNorm(ctx, stream, norm, tensor(model, `${at}.mlp.norm.bias`), model.config.normEps);
    return { z: linear(ctx, x, up) };
  }
  const x = rmsNorm(ctx, stream, norm, (model.config as LlamaConfig).normEps);
  return { z: linear(ctx, x, weight(model, `${at}.mlp.gate`)), up: linear(ctx, x, up) };
}

/** The down projection's input for a pre-activation. Gradient to z. */
export function keyFrom(ctx: Ctx, model: Model, { z, up }: PreActivation): Tensor {
  if (up) return gated(ctx, z, up, "silu");
  return activation(ctx, z, activationOf(model));
}
