/**
 * Scores of continuations under teacher forcing, and the likeliest next tokens. All prompts go through the
 * model as one batch of rows; a prompt that occurs with several continuations is computed once.
 */
import { requireRoom } from "../editors/requests.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { packRows, selectRows } from "../engine/models/rows.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { copy } from "../engine/ops/elementwise.ts";
import { gatherRows } from "../engine/ops/rows.ts";
import { logits, vocabLoss } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../engine/tensor/transfer.ts";

/** A prompt and the continuation whose probability is wanted, as token ids. */
export interface Continuation {
  prompt: readonly number[];
  target: readonly number[];
}

/** Rows a batch at most, unless one sequence alone has more; longer lists are cut into several. */
const MAX_ROWS = 1024;

/**
 * Log-probability of every target token given the prompt and the target's earlier tokens.
 * @throws {InputError} when a prompt with its continuation does not fit the context
 */
export async function scoreContinuations(model: Model, items: readonly Continuation[]): Promise<number[][]> {
  const rowsOf = ({ prompt, target }: Continuation) => prompt.length + target.length - 1;
  for (const item of items) requireRoom(rowsOf(item), model.dims, "A prompt with its continuation");
  const out: number[][] = [];
  for (const batch of batches(items, rowsOf)) out.push(...await scoreBatch(model, batch));
  return out;
}

/** Cuts a list where a batch would have more than {@link MAX_ROWS} rows. */
function* batches<T>(items: readonly T[], rowsOf: (item: T) => number): Generator<T[]> {
  let batch: T[] = [], rows = 0;
  for (const item of items) {
    if (batch.length > 0 && rows + rowsOf(item) > MAX_ROWS) {
      yield batch;
      [batch, rows] = [[], 0];
    }
    batch.push(item);
    rows += rowsOf(item);
  }
  if (batch.length > 0) yield batch;
}

async function scoreBatch(model: Model, items: readonly Continuation[]): Promise<number[][]> {
  const { gpu, dims } = model;
  const sequences: { ids: number[] }[] = [];
  const index = new Map<string, number>();
  const sequenceOf = items.map(({ prompt, target }) => {
    const ids = [...prompt, ...target.slice(0, -1)];
    const key = ids.join();
    if (!index.has(key)) index.set(key, sequences.push({ ids }) - 1);
    return index.get(key)!;
  });
  const packing = { windows: dims.windows };
  using rows = packRows(gpu, sequences, packing);
  const wanted = items.flatMap(({ prompt, target }, i) =>
    target.map((id, t) => ({ row: rows.rowOf(sequenceOf[i], prompt.length - 1 + t), id }))
  );
  const chosen = [...new Set(wanted.map((w) => w.row))].sort((a, b) => a - b);
  using select = selectRows(gpu, rows, chosen, sequences, packing);
  const place = new Map(chosen.map((row, i) => [row, i]));
  const n = wanted.length;
  const tensors = [
    fromHost(gpu, "scored rows", [n], Uint32Array.from(wanted, (w) => place.get(w.row)!)),
    fromHost(gpu, "scored tokens", [n], Uint32Array.from(wanted, (w) => w.id)),
    fromHost(gpu, "ones", [n], new Float32Array(n).fill(1)),
    createTensor(gpu, "scores", [n]),
  ];
  const [gather, targets, weights, scores] = tensors;
  try {
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const h = finalNorm(ctx, model, forward(ctx, model, rows, { select }));
    const loss = vocabLoss(ctx, gatherRows(ctx, h, gather), weight(model, "head"), { targets, weights });
    copy(ctx, loss, scores);
    using plan = ctx.r.finish("score");
    plan.run();
    const flat = await readF32(gpu, scores);
    let at = 0;
    return items.map(({ target }) => target.map(() => -flat[at++]));
  } finally {
    tensors.forEach((t) => freeTensor(gpu, t));
  }
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
    return prompts.map((_, i) => likeliest(all.subarray(i * dims.vocab, (i + 1) * dims.vocab), k));
  } finally {
    freeTensor(gpu, kept);
  }
}

function likeliest(row: Float32Array, k: number): TokenProbability[] {
  const top = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = row.reduce((sum, z) => sum + Math.exp(z - top), 0);
  const best: number[] = [];
  for (let id = 0; id < row.length; id++) {
    if (best.length === k && row[id] <= row[best[k - 1]]) continue;
    let at = best.length;
    while (at > 0 && row[id] > row[best[at - 1]]) at--;
    best.splice(at, 0, id);
    best.length = Math.min(best.length, k);
  }
  return best.map((id) => ({ id, p: Math.exp(row[id] - top) / total }));
}
