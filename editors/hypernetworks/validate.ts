/**
 * How good an editor is on edits that it never saw: every answer teacher-forced, right when all of its tokens are the
 * likeliest ones (memory-and-meta guide section 0.4, definition a), and unrelated answers kept when every likeliest
 * token stays.
 */
import { finalNorm, forward, type Model } from "../../engine/models/model.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../../engine/tensor/tensor.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";
import { withFactors } from "./edited.ts";
import type { Hypernetwork } from "./network.ts";
import { type EditGroup, type LossWeights, recordBase, recordLosses } from "./step.ts";
import { answerOf, packScored, u32 } from "./texts.ts";
import { layerOf } from "./maps.ts";

/** Shares of edits, and the losses of training. */
export interface Quality {
  /** The edited prompt gives the new answer. */
  edit: number;
  /** So does the outer text. */
  paraphrase: number;
  /** The answer to the unrelated prompt stays. */
  locality: number;
  /** Weighted. */
  editLoss: number;
  locLoss: number;
  examples: number;
}

/** Tries an editor on groups of edits, `batch` groups at a time. Waits once a batch. */
export async function validate(
  model: Model,
  network: Hypernetwork,
  groups: readonly EditGroup[],
  weights: LossWeights,
  batch = 8,
): Promise<Quality> {
  const sums = { edit: 0, paraphrase: 0, locality: 0, editLoss: 0, locLoss: 0, examples: 0 };
  for (let first = 0; first < groups.length; first += batch) {
    const part = groups.slice(first, first + batch);
    const one = await validateBatch(model, network, part, weights);
    sums.editLoss += one.editLoss * part.length;
    sums.locLoss += one.locLoss * part.length;
    for (const key of ["edit", "paraphrase", "locality", "examples"] as const) sums[key] += one[key];
  }
  const n = sums.examples;
  return {
    edit: sums.edit / n,
    paraphrase: sums.paraphrase / n,
    locality: sums.locality / n,
    editLoss: sums.editLoss / groups.length,
    locLoss: sums.locLoss / groups.length,
    examples: n,
  };
}

async function validateBatch(
  model: Model,
  network: Hypernetwork,
  groups: readonly EditGroup[],
  weights: LossWeights,
): Promise<Quality> {
  const { gpu } = model;
  using owned = new DisposableStack();
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const make = (label: string, n: number, dtype: "f32" | "u32" = "f32") =>
    owned.adopt(createTensor(gpu, label, [n], { dtype }), (t) => freeTensor(gpu, t));
  const base = recordBase(ctx, model, network, groups, owned);
  const { terms, states, head, factors } = recordLosses(ctx, model, network, groups, base, weights, {
    ...{ learn: false, owned },
  });
  const losses = make("losses", 2);
  copy(ctx, terms, losses);

  // The edited prompts themselves are no part of the loss.
  const texts = groups.flatMap((group, g) => group.map(({ edit }) => answerOf(edit, g)));
  const edits = owned.use(packScored(model, texts));
  const edited = withFactors(model, factors, edits);
  const from = Math.min(...network.roles.map(layerOf));
  const input = base.editInput;
  const own = finalNorm(ctx, edited, forward(ctx, edited, edits.rows, { from, input, select: edits.select }));
  const best = (label: string, h: typeof own, targets: number[]) => {
    const into = {
      logProbs: make(`${label} scores`, targets.length),
      best: make(label, targets.length, "u32"),
    };
    const rows = u32(gpu, owned, `${label} rows`, [...targets.keys()]);
    vocabScores(ctx, h, head, { rows, targets: u32(gpu, owned, `${label} targets`, targets) }, into);
    return into.best;
  };
  const wanted = base.after.scored.map(({ target }) => target);
  const bestEdit = best("best of edits", own, edits.scored.map(({ target }) => target));
  const bestAfter = best("best after", states, wanted);
  const bestBase = best("best before", base.final, wanted.slice(base.outerRows));
  using plan = ctx.r.finish("validation");
  plan.run();
  const [loss, e, a, b] = await readTensors(gpu, losses, bestEdit, bestAfter, bestBase);

  const n = texts.length;
  const right = new Array(n).fill(true), paraphrase = new Array(n).fill(true), kept = new Array(n).fill(true);
  edits.scored.forEach(({ text, target }, i) => right[text] &&= e[i] === target);
  const examples = groups.flat();
  base.after.scored.forEach(({ text, position, target }, i) => {
    if (i < base.outerRows) paraphrase[text] &&= a[i] === target;
    else {
      // Of the unrelated text only the rows that predict its answer.
      const { prompt, target: answer } = examples[text - n].loc;
      const asked = position >= prompt.length - 1 && position < prompt.length + answer.length - 1;
      if (asked) kept[text - n] &&= a[i] === b[i - base.outerRows];
    }
  });
  const count = (list: boolean[]) => list.filter(Boolean).length;
  return {
    edit: count(right),
    paraphrase: count(paraphrase),
    locality: count(kept),
    editLoss: loss[0],
    locLoss: loss[1],
    examples: n,
  };
}
