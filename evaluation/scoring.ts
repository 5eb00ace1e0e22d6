/**
 * Scores of continuations under teacher forcing, and the likeliest next tokens. All prompts go through the
 * model as one batch of rows; a prompt that occurs with several continuations is computed once, so is a front
 * that an edit puts before several prompts, and the head runs once on each row that predicts a target token.
 */
import { requireRoom } from "../editors/requests.ts";
import { InputError } from "../engine/io/errors.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { distinctLists, logitsOf, nextLogits } from "../engine/models/next.ts";
import { byRoute, isRouted, type Route, routesOf } from "../engine/models/route.ts";
import { packRows, selectRows, type Sequence } from "../engine/models/rows.ts";
import { likeliest, logSumExp } from "../engine/models/sample.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { vocabScores } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";

/** A prompt and the continuation whose probability is wanted, as token ids. */
export interface Continuation {
  /** What stands before the prompt, shared by many; its keys and values are computed once a batch. */
  front?: readonly number[];
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
 * Scores continuations under teacher forcing, in the order of `items`. Edits that route prompts are asked first.
 * @throws {InputError} when a prompt is empty or does not fit the context with its continuation
 */
export async function scoreTargets(model: Model, items: readonly Continuation[]): Promise<TargetScore[]> {
  if (!isRouted(model)) return await scorePlain(model, items);
  const prompts = distinctLists(items.map(({ prompt }) => prompt));
  const known = new Map((await routesOf(model, prompts)).map((route, i) => [prompts[i].join(), route]));
  const asked = items.map((item) => ({ ...item, route: known.get(item.prompt.join())! }));
  const mixed = (at: number) => asked[at].route.share !== undefined;
  return await byRoute(asked.map(({ route }) => route), async (answers, at) => {
    const alone = await scorePlain(
      answers,
      at.filter((i) => !mixed(i)).map((i) => ({ ...asked[i].route, target: asked[i].target })),
    );
    const both = await scoreMixed(model, at.filter(mixed).map((i) => asked[i]));
    return at.map((i) => (mixed(i) ? both : alone).shift()!);
  });
}

/** Where two models answer together, every place of a target is the end of a prompt. */
async function scoreMixed(
  model: Model,
  items: readonly (Continuation & { route: Route })[],
): Promise<TargetScore[]> {
  const places = items.flatMap(({ route, prompt, target }) =>
    target.map((_, t) => {
      const fed = target.slice(0, t);
      return { route: { ...route, prompt: [...route.prompt, ...fed] }, prompt: [...prompt, ...fed] };
    })
  );
  const rows = await logitsOf(model, places);
  return items.map(({ target }) => {
    const own = rows.splice(0, target.length);
    return {
      logProbs: target.map((id, t) => own[t][id] - logSumExp(own[t])),
      argmax: own.map((row) => likeliest(row, 1)[0]),
    };
  });
}

async function scorePlain(model: Model, items: readonly Continuation[]): Promise<TargetScore[]> {
  for (const { front = [], prompt, target } of items) {
    if (prompt.length === 0) throw new InputError("Cannot score the continuation of an empty prompt");
    const what = front.length
      ? "A prompt with what stands before it and its continuation"
      : "A prompt with its continuation";
    requireRoom(front.length + prompt.length + target.length - 1, model.dims, what);
  }
  const scores: TargetScore[] = items.map(() => ({ logProbs: [], argmax: [] }));
  const asked = items.map(({ front = [], prompt, target }, i): Asked => {
    const before = front.join();
    return { front, prompt, target, before, key: `${before};${prompt.join()}`, score: scores[i] };
  }).filter(({ target }) => target.length > 0);
  const grouped = [...Map.groupBy(asked, ({ before }) => before).values()]
    .flatMap((some) => [...Map.groupBy(some, ({ key }) => key).values()].flat());
  // A front is one to a batch, whatever its length.
  const rowsOf = (item: Asked, before?: Asked) =>
    item.target.length + (item.key === before?.key && !item.front.length ? 0 : item.prompt.length);
  for (const batch of batches(grouped, rowsOf)) await scoreBatch(model, batch);
  return scores;
}

/** A continuation with the names of its front and its prompt, and the place for its score. */
interface Asked extends Required<Continuation> {
  before: string;
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
 * begins otherwise is a tail over the prompt's rows. A front is the start of the first sequence that has it;
 * over it a tail is a prompt with its target. The last token of a target is never fed.
 * @param items those of one front, and of one prompt, next to each other
 */
function packContinuations(items: readonly Asked[]): { sequences: Sequence[]; wanted: Wanted[] } {
  const sequences: Sequence[] = [];
  const wanted: Wanted[] = [];
  const fronts = new Map<string, number>();
  let end = 0;
  for (const group of Map.groupBy(items, ({ key }) => key).values()) {
    const { front, prompt, before } = group[0];
    /** A fed target: the row of the prompt's last token, and that of its own first one. */
    const runs: { fed: readonly number[]; last: number; row: number }[] = [];
    for (const { target, score } of group.toSorted((a, b) => b.target.length - a.target.length)) {
      const fed = target.slice(0, -1);
      let run = runs.find((known) => fed.every((id, t) => id === known.fed[t]));
      if (!run) {
        const ids = [...front, ...prompt, ...fed];
        // What the sequence has in common with rows that are there already.
        const shared = front.length
          ? fronts.get(before)
          : runs.length
          ? runs[0].last - prompt.length + 1
          : undefined;
        const count = front.length || prompt.length;
        sequences.push({
          ids,
          prompt: front.length + prompt.length,
          ...shared !== undefined && { from: count, prefix: { slot: shared, count } },
        });
        if (front.length && shared === undefined) fronts.set(before, end);
        end += shared === undefined ? ids.length : ids.length - count;
        const row = end - fed.length;
        const over = shared !== undefined && !front.length;
        runs.push(run = { fed, last: over ? runs[0].last : row - 1, row });
      }
      const { last, row } = run;
      target.forEach((id, t) => wanted.push({ row: t === 0 ? last : row + t - 1, id, score }));
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
  return (await nextLogits(model, prompts)).map((row) => likeliestOf(row, k));
}

function likeliestOf(row: Float32Array, k: number): TokenProbability[] {
  const best = likeliest(row, k);
  const total = logSumExp(row);
  return best.map((id) => ({ id, p: Math.exp(row[id] - total) }));
}
