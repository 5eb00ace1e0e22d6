/**
 * Scores of continuations under teacher forcing, and the likeliest next tokens. All prompts go through the
 * model as one batch of rows; a prompt that occurs with several continuations is computed once, and the head
 * runs once on each row that predicts a target token.
 */
import { requireRoom } from "../editors/requests.ts";
import { InputError } from "../engine/io/errors.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { packRows, selectRows, type Sequence } from "../engine/models/rows.ts";
import { likeliest } from "../engine/models/sample.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { copy } from "../engine/ops/elementwise.ts";
import { logits, vocabScores } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost, readF32, readTensors } from "../engine/tensor/transfer.ts";

/** A prompt and the continuation whose probability is wanted, as token ids. */
export interface Continuation {
  prompt: readonly number[];
  target: readonly number[];
}

/** What a model says to a continuation, token by token. */
export interface TargetScore {
  /** Natural log-probability of each target token given the prompt and the target's earlier tokens. */
  logProbs: number[];
  /** The likeliest token at each of these places, the lowest id among equals. */
  argmax: number[];
}

/** Rows a batch at most, unless one sequence alone has more; longer lists are cut into several. */
const MAX_ROWS = 1024;

/**
 * Scores continuations under teacher forcing, in the order of `items`.
 * @throws {InputError} when a prompt is empty or does not fit the context with its continuation
 */
export async function scoreTargets(model: Model, items: readonly Continuation[]): Promise<TargetScore[]> {
  for (const { prompt, target } of items) {
    if (prompt.length === 0) throw new InputError("Cannot score the continuation of an empty prompt");
    requireRoom(prompt.length + target.length - 1, model.dims, "A prompt with its continuation");
  }
  const scores: TargetScore[] = items.map(() => ({ logProbs: [], argmax: [] }));
  const asked = items.map((item, i) => ({ ...item, key: item.prompt.join(), score: scores[i] }))
    .filter(({ target }) => target.length > 0);
  const grouped = [...Map.groupBy(asked, ({ key }) => key).values()].flat();
  const rowsOf = (item: Asked, before?: Asked) =>
    item.target.length + (item.key === before?.key ? 0 : item.prompt.length);
  for (const batch of batches(grouped, rowsOf)) await scoreBatch(model, batch);
  return scores;
}

/** A continuation with the name of its prompt and the place for its score. */
interface Asked extends Continuation {
  key: string;
  score: TargetScore;
}

/** Cuts a list where a batch would have more than {@link MAX_ROWS} rows. */
function* batches<T>(items: readonly T[], rowsOf: (item: T, before?: T) => number): Generator<T[]> {
  let batch: T[] = [], rows = 0;
  for (const item of items) {
    if (batch.length > 0 && rows + rowsOf(item, batch.at(-1)) > MAX_ROWS) {
      yield batch;
      [batch, rows] = [[], 0];
    }
    rows += rowsOf(item, batch.at(-1));
    batch.push(item);
  }
  if (batch.length > 0) yield batch;
}

async function scoreBatch(model: Model, items: readonly Asked[]): Promise<void> {
  const { gpu, dims } = model;
  const { sequences, wanted } = packContinuations(items);
  const packing = { windows: dims.windows };
  using rows = packRows(gpu, sequences, packing);
  const chosen = [...new Set(wanted.map((w) => w.row))].sort((a, b) => a - b);
  using select = selectRows(gpu, rows, chosen, sequences, packing);
  const place = new Map(chosen.map((row, i) => [row, i]));
  const n = wanted.length;
  const tensors = [
    fromHost(gpu, "scored rows", [n], Uint32Array.from(wanted, (w) => place.get(w.row)!)),
    fromHost(gpu, "scored tokens", [n], Uint32Array.from(wanted, (w) => w.id)),
    createTensor(gpu, "log-probabilities", [n]),
    createTensor(gpu, "likeliest tokens", [n], { dtype: "u32" }),
  ];
  const [scored, targets, logProbs, best] = tensors;
  try {
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const h = finalNorm(ctx, model, forward(ctx, model, rows, { select }));
    vocabScores(ctx, h, weight(model, "head"), { rows: scored, targets }, { logProbs, best });
    using plan = ctx.r.finish("score");
    plan.run();
    const [values, tokens] = await readTensors(gpu, logProbs, best);
    wanted.forEach(({ score }, i) => {
      score.logProbs.push(values[i]);
      score.argmax.push(tokens[i]);
    });
  } finally {
    tensors.forEach((t) => freeTensor(gpu, t));
  }
}

/** A token whose probability is wanted after a row. */
interface Wanted {
  row: number;
  id: number;
  score: TargetScore;
}

/**
 * Sequences in which every prompt is computed once: it goes on with its longest target, and a target that
 * begins otherwise is a tail over the prompt's rows. The last token of a target is never fed.
 * @param items those of one prompt next to each other
 */
function packContinuations(items: readonly Asked[]): { sequences: Sequence[]; wanted: Wanted[] } {
  const sequences: Sequence[] = [];
  const wanted: Wanted[] = [];
  let end = 0;
  for (const group of Map.groupBy(items, ({ key }) => key).values()) {
    const { prompt } = group[0];
    const slot = end, count = prompt.length;
    const runs: { fed: readonly number[]; row: number }[] = [];
    for (const { target, score } of group.toSorted((a, b) => b.target.length - a.target.length)) {
      const fed = target.slice(0, -1);
      let run = runs.find((known) => fed.every((id, t) => id === known.fed[t]));
      if (!run) {
        const tail = runs.length > 0;
        sequences.push({ ids: [...prompt, ...fed], ...tail && { from: count, prefix: { slot, count } } });
        runs.push(run = { fed, row: tail ? end : end + count });
        end = run.row + fed.length;
      }
      const { row } = run;
      target.forEach((id, t) => wanted.push({ row: t === 0 ? slot + count - 1 : row + t - 1, id, score }));
    }
  }
  return { sequences, wanted };
}

/** Mean of log-probabilities: the length-normalised score that ROME's evaluation compares. */
export function meanLogProb(logProbs: readonly number[]): number {
  return logProbs.reduce((a, b) => a + b, 0) / logProbs.length;
}

/** A token and its probability. */
export interface TokenProbability {
  id: number;
  p: number;
}

/**
 * The k likeliest next tokens after each prompt, likeliest first.
 * @throws {InputError} when a prompt does not fit the context
 */
export async function topTokens(
  model: Model,
  prompts: readonly (readonly number[])[],
  k: number,
): Promise<TokenProbability[][]> {
  for (const ids of prompts) requireRoom(ids.length, model.dims, "A prompt");
  const out: TokenProbability[][] = [];
  for (const batch of batches(prompts, (ids) => ids.length)) out.push(...await topOfBatch(model, batch, k));
  return out;
}

async function topOfBatch(
  model: Model,
  prompts: readonly (readonly number[])[],
  k: number,
): Promise<TokenProbability[][]> {
  const { gpu, dims } = model;
  const sequences = prompts.map((ids) => ({ ids }));
  const packing = { windows: dims.windows };
  using rows = packRows(gpu, sequences, packing);
  using select = selectRows(
    gpu,
    rows,
    prompts.map((ids, i) => rows.rowOf(i, ids.length - 1)),
    sequences,
    packing,
  );
  const kept = createTensor(gpu, "logits", [prompts.length, dims.vocab]);
  try {
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const h = finalNorm(ctx, model, forward(ctx, model, rows, { select }));
    copy(ctx, logits(ctx, h, weight(model, "head")), kept);
    using plan = ctx.r.finish("top tokens");
    plan.run();
    const all = await readF32(gpu, kept);
    return prompts.map((_, i) => likeliestOf(all.subarray(i * dims.vocab, (i + 1) * dims.vocab), k));
  } finally {
    freeTensor(gpu, kept);
  }
}

function likeliestOf(row: Float32Array, k: number): TokenProbability[] {
  const best = likeliest(row, k);
  const top = row[best[0]];
  const total = row.reduce((sum, z) => sum + Math.exp(z - top), 0);
  return best.map((id) => ({ id, p: Math.exp(row[id] - top) / total }));
}
