/**
 * KE's constrained objective (De Cao et al. 2021, section 3.2; memory-and-meta guide section 3.3): of each edited model
 *
 *   L = cr + α (kl − m)
 *
 * with cr the label-smoothed loss of the new answer at the edited prompt and at its other wording, one token mean, and
 * kl = KL(base ‖ edited) at the answer of something else. Label smoothing is a divergence from a smoothed answer too,
 * so that both are one kind of row; α is a number on the device, and weighs rows.
 */
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { joinRows, rowRange } from "../../engine/ops/columns.ts";
import { groupProduct } from "../../engine/ops/conditioned.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import { fill } from "../../engine/ops/elementwise.ts";
import { groupMean } from "../../engine/ops/rows.ts";
import { smoothedTargets } from "../../engine/ops/smoothed.ts";
import { vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { withFactors } from "./edited.ts";
import type { Hypernetwork } from "./network.ts";
import { type BasePass, type EditGroup, editTexts } from "./step.ts";
import { answerOf, f32, meanWeights, type Packed, packScored, u32 } from "./texts.ts";

/** What the objective is made with. */
export interface Objective {
  /** The multiplier α, f32 [1]. */
  alpha: Tensor;
  /** ε of the label smoothing. */
  smoothing: number;
}

/**
 * Records the objective for groups of one edit each. With a tape the gradient of cr + α·kl flows to the network's
 * parameters.
 * @returns f32 [1] each, means over the groups: cr less the entropy of a smoothed answer, and kl
 */
export function recordObjective(
  ctx: Ctx,
  model: Model,
  network: Hypernetwork,
  groups: readonly EditGroup[],
  base: BasePass,
  { alpha, smoothing }: Objective,
  owned: DisposableStack,
): { cr: Tensor; kl: Tensor } {
  const { gpu } = model;
  const plain: Ctx = { gpu, r: ctx.r };
  const edits = editTexts(groups), { after, from, outerRows } = base;
  const factors = network.factors(ctx, {
    ...{ gradients: base.gradients, learn: true, owned, edits, groups: groups.length },
  });
  const own = owned.use(packScored(model, edits.map((edit) => answerOf(edit, edit.group))));
  const head = weight(model, "head");
  const statesOf = (texts: Packed, input: Tensor) => {
    const edited = withFactors(model, factors, texts);
    return finalNorm(ctx, edited, forward(ctx, edited, texts.rows, { from, input, select: texts.select }));
  };
  const states = joinRows(ctx, [statesOf(own, base.editInput), statesOf(after, base.input)]);

  const scored = [...own.scored, ...after.scored], rows = scored.length;
  const end = own.scored.length + outerRows, over = groups.length;
  const groupOf = (text: number) => edits[text % edits.length].group;
  const means = f32(gpu, owned, "means", [
    ...meanWeights(scored, groupOf, { end, over }),
    ...meanWeights(scored, groupOf, { first: end, over }),
  ]);
  const term = u32(gpu, owned, "terms", scored.map((_, i) => i < end ? 0 : 1));
  const targets = u32(gpu, owned, "targets", scored.map(({ target }) => target));
  const answers = u32(gpu, owned, "answers", scored.slice(0, end).map(({ target }) => target));
  const reference = joinRows(plain, [
    smoothedTargets(plain, answers, head.out, smoothing),
    base.reference,
  ]);
  const divergences = (ctx: Ctx, weights: Tensor) =>
    vocabLoss(ctx, states, head, { targets, weights, kl: { rows, reference, reversed: true } });

  const one = temp(plain, "one", [1, 1]);
  fill(plain, one, 1);
  const multipliers = joinRows(plain, [one, reshape(alpha, [1, 1])]);
  divergences(ctx, reshape(groupProduct(plain, reshape(means, [rows, 1]), multipliers, term), [rows]));

  const terms = temp(plain, "cr and kl", [2, 1]);
  const ones = f32(gpu, owned, "ones", scored.map(() => 1));
  groupMean(plain, reshape(divergences(plain, means), [rows, 1]), term, ones, terms);
  const [cr, kl] = [0, 1].map((i) => reshape(rowRange(plain, terms, i, 1), [1]));
  return { cr, kl };
}
