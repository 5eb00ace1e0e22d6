/**
 * One step of training an editor on several edits at once (Mitchell et al. 2022, algorithm 1; memory-and-meta guide
 * section 2.3). Each group of edits makes its own edited model; all of them run in one batch of rows:
 *
 *   L = mean over groups of c_edit·NLL(outer | edited) + c_loc·KL(base ‖ edited) on loc
 *
 * Ordinary first-order gradients flow through the edited models into the factors and on into the network. The
 * layers below the lowest edited map run once for all texts, without any edit.
 */
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { rowRange } from "../../engine/ops/columns.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import type { RowFactors } from "../../engine/ops/factored.ts";
import type { Weight } from "../../engine/ops/linear.ts";
import { groupMean } from "../../engine/ops/rows.ts";
import { logits, logSoftmax, vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { withFactors } from "./edited.ts";
import { collectGradients, type Gradients } from "./gradients.ts";
import { layerOf } from "./maps.ts";
import type { Hypernetwork } from "./network.ts";
import {
  answerOf,
  type EditExample,
  f32,
  meanWeights,
  type Packed,
  packScored,
  u32,
  wholeOf,
} from "./texts.ts";

/** Edits made together, which one edited model holds. */
export type EditGroup = readonly EditExample[];

/** Weights of the two losses. */
export interface LossWeights {
  c_edit: number;
  c_loc: number;
}

/** The base model's part of a step: nothing of it depends on the network. */
export interface BasePass {
  gradients: Gradients;
  /** The edits' own losses, one a scored row, weighted. */
  editLosses: Tensor;
  /** The outer and loc texts, in this order, with their stream entering the lowest edited layer. */
  after: Packed;
  input: Tensor;
  /** The edits' own stream entering that layer. */
  editInput: Tensor;
  from: number;
  /** Rows of `after` that are scored by NLL; the rest by KL. */
  outerRows: number;
  /** Log-probabilities of the base model at the KL rows. */
  reference: Tensor;
  /** The base model's final states at the KL rows. */
  final: Tensor;
}

/** Records the base model's part for groups of edits. */
export function recordBase(
  ctx: Pick<Ctx, "gpu" | "r">,
  model: Model,
  network: Hypernetwork,
  groups: readonly EditGroup[],
  owned: DisposableStack,
): BasePass {
  const { gpu } = model;
  const from = Math.min(...network.roles.map(layerOf));
  const examples = groups.flatMap((group, g) => group.map((example) => ({ example, g })));
  const editTexts = examples.map(({ example, g }) => answerOf(example.edit, g));
  const outerTexts = examples.map(({ example, g }) => answerOf(example.outer, g));
  const locOf = network.locAtAnswer ? answerOf : wholeOf;
  const locTexts = examples.map(({ example, g }) => locOf(example.loc, g));
  const edits = owned.use(packScored(model, editTexts));
  const after = owned.use(packScored(model, [...outerTexts, ...locTexts]));
  const loc = owned.use(packScored(model, locTexts));
  const all = owned.use(packScored(model, [...editTexts, ...outerTexts, ...locTexts]));

  const lower = forward(ctx, model, all.rows, { to: from });
  const part = (first: number, { rows }: Packed) => rowRange(ctx, lower, first, rows.count);
  // An edit's own loss is a mean over its group only: the number of groups does not shrink its gradient.
  const weights = f32(
    gpu,
    owned,
    "edit weights",
    editWeights(network, edits, (text) => editTexts[text].group),
  );
  const editInput = part(0, edits);
  const { gradients, losses } = collectGradients(
    ctx,
    model,
    network.roles,
    edits,
    { targets: u32(gpu, owned, "edit targets", edits.scored.map(({ target }) => target)), weights },
    { from, input: editInput },
  );
  const outerRows = after.select.count - loc.select.count;
  const h = forward(ctx, model, loc.rows, {
    from,
    input: part(all.rows.count - loc.rows.count, loc),
    select: loc.select,
  });
  const final = finalNorm(ctx, model, h), head = weight(model, "head");
  const reference = temp(ctx, "base log-probabilities", [loc.select.count, head.out]);
  logSoftmax(ctx, logits(ctx, final, head), reference);
  const input = part(edits.rows.count, after);
  return { gradients, editLosses: losses, after, input, editInput, from, outerRows, reference, final };
}

/** What the scored rows of edits weigh in the edits' own loss. */
export function editWeights(
  { perToken }: Pick<Hypernetwork, "perToken">,
  { scored }: Packed,
  groupOf: (text: number) => number,
): number[] {
  return perToken ? scored.map(() => 1) : meanWeights(scored, groupOf);
}

/** The texts that an editor may read. */
export function editTexts(groups: readonly EditGroup[]) {
  return groups.flatMap((group, g) => group.map(({ edit, before }) => ({ ...edit, before, group: g })));
}

/**
 * Records the edited models' part: [edit, loc], each weighted and averaged over the groups. With a tape the gradient
 * of their sum flows to the network's parameters. `states` are the final states of the scored rows.
 */
export function recordLosses(
  ctx: Ctx,
  model: Model,
  network: Hypernetwork,
  groups: readonly EditGroup[],
  base: BasePass,
  { c_edit, c_loc }: LossWeights,
  { learn, owned }: { learn: boolean; owned: DisposableStack },
): { terms: Tensor; states: Tensor; head: Weight; factors: ReadonlyMap<string, RowFactors> } {
  const { gpu } = model;
  const { gradients, after, from, input, outerRows, reference } = base;
  const edits = editTexts(groups);
  const factors = network.factors(ctx, {
    ...{ gradients, learn, owned, edits, groups: groups.length },
  });
  const edited = withFactors(model, factors, after);
  const h = forward(ctx, edited, after.rows, { from, input, select: after.select });
  const states = finalNorm(ctx, edited, h), head = weight(edited, "head");
  const rows = after.scored.length;
  const groupOf = (text: number) => edits[text % edits.length].group, over = groups.length;
  const weights = [
    ...meanWeights(after.scored, groupOf, { end: outerRows, over }).map((w) => c_edit * w),
    ...meanWeights(after.scored, groupOf, { first: outerRows, over }).map((w) => c_loc * w),
  ];
  const losses = vocabLoss(ctx, states, head, {
    targets: u32(gpu, owned, "targets", after.scored.map(({ target }) => target)),
    weights: f32(gpu, owned, "loss weights", weights),
    kl: { rows: rows - outerRows, reference, reversed: true },
  });
  const terms = temp(ctx, "edit and locality loss", [2]);
  groupMean(
    ctx,
    reshape(losses, [rows, 1]),
    u32(gpu, owned, "terms", weights.map((_, i) => i < outerRows ? 0 : 1)),
    f32(gpu, owned, "ones", weights.map(() => 1)),
    reshape(terms, [2, 1]),
  );
  return { terms, states, head, factors };
}
