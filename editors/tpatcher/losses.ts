/** T-Patcher's losses (Huang et al. 2023, section 3.3; guide section 7.3) as ops on the patches of one edit. */
import { finalNorm, type Model, weight } from "../../engine/models/model.ts";
import { activation } from "../../engine/ops/activation.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { fill, multiply } from "../../engine/ops/elementwise.ts";
import { linear, type Weight } from "../../engine/ops/linear.ts";
import { groupMean } from "../../engine/ops/rows.ts";
import { topExp } from "../../engine/ops/top_exp.ts";
import { vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import type { TPatcherHparams } from "../t_patcher.ts";

/** The numbers of an edit that is trained: T tokens of the target, n patches. */
export interface Numbers {
  /** [T, width]: what the layer reads at the tokens that predict the target's, and the stream behind it there. */
  queries: Tensor;
  streams: Tensor;
  /** [n, width]: what it reads at each patch's own mistake. */
  own: Tensor;
  /** Trained: k [n, width], b [n], v₀ and α [n, width]. */
  keys: Tensor;
  bias: Tensor;
  values: Tensor;
  alpha: Tensor;
  /** u32 [T]; `weights` are 1/T, `ones` 1, `same` 0. */
  targets: Tensor;
  weights: Tensor;
  ones: Tensor;
  same: Tensor;
  /** u32 [T]: receives the likeliest tokens. */
  best: Tensor;
  /** [1] each: receive l_e, l_a and λ·l_m. */
  terms: [Tensor, Tensor, Tensor];
}

/** Losses of the authors' eight equal copies: 5 of 8 are the largest, 1000 of 8 the 125 largest. */
const LARGEST_OWN = 1, LARGEST_MEMORY = 125;

/**
 * The three losses; gradients flow from their sum.
 * @param memory [m, width]: what the layer reads where the patches must be silent
 */
export function losses(
  ctx: Ctx,
  model: Model,
  numbers: Numbers,
  memory: Tensor,
  { activation: kind, alc, mlc: scale, margin_val1, margin_val2 }: TPatcherHparams,
): void {
  const { queries, streams, own, keys, bias, values, alpha, same, ones, terms } = numbers;
  const [nll, activationLoss, memoryLoss] = terms;
  const [n, width] = keys.shape;
  const map = (name: string, matrix: Tensor, more: Partial<Weight>): Weight => ({
    ...{ role: `patch ${name}`, name, matrix, layout: "out_in", out: n, in: width, overlays: [] },
    ...more,
  });
  const key = map("keys", keys, { bias });
  const value = map("values", multiply(ctx, values, alpha), { layout: "in_out", out: width, in: n });
  terms.forEach((t) => fill(ctx, t, 0));

  const active = activation(ctx, linear(ctx, queries, key), kind);
  const h = linear(ctx, active, value, { residual: streams });
  const loss = vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), numbers);
  groupMean(ctx, reshape(loss, [loss.shape[0], 1]), same, ones, reshape(nll, [1, 1]));

  const a = linear(ctx, own, key), m = linear(ctx, memory, key);
  topExp(ctx, a, activationLoss, { sign: -1, diagonal: true, k: LARGEST_OWN, scale: alc });
  topExp(ctx, m, memoryLoss, { c: -margin_val2, k: LARGEST_MEMORY, scale });
  topExp(ctx, m, memoryLoss, { c: margin_val1, shift: a, k: LARGEST_MEMORY, scale });
}
