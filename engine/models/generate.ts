/**
 * Text generation. Greedy decoding and sampling from a few likeliest tokens stay on the device: a plan for one
 * row a prompt chooses, notes and feeds its next token, and is replayed many times between two waits. Other
 * sampling reads the logits of each step.
 */
import { InputError } from "../io/errors.ts";
import { argmaxRows } from "../ops/argmax.ts";
import type { Ctx } from "../ops/context.ts";
import { advanceQueries, advanceRows, type DecodeState } from "../ops/decode.ts";
import { copy } from "../ops/elementwise.ts";
import { MAX_TOP_K, sampleTopK } from "../ops/sample.ts";
import { logits } from "../ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../tensor/tensor.ts";
import { fromHost, readF32, readTensors, writeTensor } from "../tensor/transfer.ts";
import { finalNorm, forward, type Model, type Span, weight } from "./model.ts";
import { type Asked, logitsOf } from "./next.ts";
import { byRoute, isRouted, type Route, routesOf } from "./route.ts";
import { createCache, packRows, type Rows, selectRows, type Sequence } from "./rows.ts";
import { sample, type Sampling, seededRandom } from "./sample.ts";

export type { Sampling } from "./sample.ts";

/** How to generate. Greedy unless `temperature` is above 0. */
export interface GenerateOptions extends Sampling {
  /** New tokens at most; fewer when the context ends. */
  maxTokens: number;
  /** Tokens that end a text; they are not part of the result. Default: the model's end-of-text tokens. */
  stop?: readonly number[];
  /**
   * Has a text, given its new ids, reached its end? Asked at each wait. When all have, nothing more is computed;
   * what a text has beyond its end is the caller's to cut.
   */
  until?: (ids: number[]) => boolean;
  /** Called with the number of new tokens after each wait. */
  onTokens?: (tokens: number) => void;
}

/**
 * Steps between two looks at the texts; with `until` from the first number on, doubled up to the other. A look
 * costs about as much as two steps of a small model, and texts whose end is asked for are mostly short.
 */
const FIRST_STEPS = 4, MOST_STEPS = 16;

/**
 * Continues each prompt (token ids); returns the new ids alone. Edits that route prompts are asked first, once:
 * who begins a text ends it.
 * @throws {InputError} for an empty prompt or one that fills the context
 */
export async function generate(
  model: Model,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
): Promise<number[][]> {
  for (const ids of prompts) requireContinuable(ids, model.dims.maxPositions);
  if (!isRouted(model)) {
    return await continueAll(prompts.map((prompt) => ({ model, front: [], prompt })), options);
  }
  const routes = await routesOf(model, prompts);
  const mixed = (i: number) => routes[i].share !== undefined;
  return await byRoute(routes, async (_, at) => {
    const alone = await continueAll(at.filter((i) => !mixed(i)).map((i) => routes[i]), options);
    const asked = at.filter(mixed).map((i) => ({ route: routes[i], prompt: prompts[i] }));
    const both = await continueMixed(model, asked, options);
    return at.map((i) => (mixed(i) ? both : alone).shift()!);
  });
}

/** Continues prompts that two models answer together, all by a token at a time. */
async function continueMixed(
  model: Model,
  asked: readonly Asked[],
  options: GenerateOptions,
): Promise<number[][]> {
  const { maxTokens, until, seed = 0 } = options;
  const stop = stopsOf(model, options);
  const random = seededRandom(seed);
  const texts = asked.map((): number[] => []);
  const open = new Set(asked.keys());
  for (let done = 0; done < maxTokens && open.size > 0; done++) {
    for (const i of open) {
      const { front, prompt } = asked[i].route;
      if (front.length + prompt.length + done >= model.dims.maxPositions) open.delete(i);
    }
    const going = [...open].map((i): Asked => {
      const { route, prompt } = asked[i];
      return {
        route: { ...route, prompt: [...route.prompt, ...texts[i]] },
        prompt: [...prompt, ...texts[i]],
      };
    });
    const rows = await logitsOf(model, going);
    for (const [at, i] of [...open].entries()) {
      const id = sample(rows[at], options, random);
      if (stop.has(id)) open.delete(i);
      else {
        texts[i].push(id);
        if (until?.(texts[i])) open.delete(i);
      }
    }
    options.onTokens?.(done + 1);
  }
  return texts;
}

function stopsOf({ config }: Model, { stop }: GenerateOptions): ReadonlySet<number> {
  return new Set(
    stop ?? (config.type === "llama" ? config.stops : config.eos === undefined ? [] : [config.eos]),
  );
}

/** Continues prompts that one model answers. */
async function continueAll(routes: readonly Route[], options: GenerateOptions): Promise<number[][]> {
  if (routes.length === 0) return [];
  const { model } = routes[0];
  const { dims } = model;
  const prompts = routes.map(({ front, prompt }) => [...front, ...prompt]);
  for (const ids of prompts) requireContinuable(ids, dims.maxPositions);
  const room = prompts.map((ids) => Math.min(options.maxTokens, dims.maxPositions - ids.length));
  const capacity = Math.max(0, ...room);
  if (capacity === 0) return prompts.map(() => []);
  const stop = stopsOf(model, options);
  using decoder = createDecoder(model, routes, capacity, options);
  let texts: number[][] = prompts.map(() => []);
  const ended = prompts.map(() => false);
  let steps = options.until ? FIRST_STEPS : MOST_STEPS;
  for (let done = 0; done < capacity && !ended.every(Boolean);) {
    const all = await decoder.next(Math.min(steps, capacity - done));
    steps = Math.min(2 * steps, MOST_STEPS);
    done = all[0].length;
    texts = all.map((ids, i) => untilStop(ids.slice(0, room[i]), stop));
    texts.forEach((ids, i) => ended[i] ||= ids.length < done || (options.until?.(ids) ?? false));
    options.onTokens?.(done);
  }
  return texts;
}

function requireContinuable(ids: readonly number[], maxPositions: number): void {
  if (ids.length === 0) throw new InputError("Cannot continue an empty prompt");
  if (ids.length < maxPositions) return;
  throw new InputError(`The prompt has ${ids.length} tokens; the model's context holds ${maxPositions}`);
}

function untilStop(ids: number[], stop: ReadonlySet<number>): number[] {
  const end = ids.findIndex((id) => stop.has(id));
  return end < 0 ? ids : ids.slice(0, end);
}

/** Prompts being continued. */
interface Decoder extends Disposable {
  /** Goes on by at most `steps` tokens and waits: all new ids so far, of each prompt. */
  next(steps: number): Promise<number[][]>;
}

/** Runs the prompts into a cache and prepares to continue each by at most `capacity` tokens. */
function createDecoder(
  model: Model,
  routes: readonly Route[],
  capacity: number,
  options: GenerateOptions,
): Decoder {
  const prompts = routes.map(({ front, prompt }) => [...front, ...prompt]);
  const { gpu, dims } = model;
  const { temperature = 0, topK = Infinity, topP, seed = 0 } = options;
  const count = prompts.length;
  const random = seededRandom(seed);
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, (t) => freeTensor(gpu, t));
  const { sequences, fronts, slots } = placeInCache(routes, capacity);
  const width = dims.kvHeads * dims.headDim;
  const cache = owned.use(createCache(gpu, { layers: dims.layers, slots, width }));
  const packing = { cached: true, windows: dims.windows };
  const tails = owned.use(
    packRows(gpu, sequences.map((s) => ({ ...s, from: s.ids.length - 1, prompt: 0 })), packing),
  );
  const state: DecodeState = {
    next: own(createTensor(gpu, "next token", [count], { dtype: "u32" })),
    start: own(fromHost(gpu, "start", [count], Uint32Array.from(prompts, (ids) => ids.length))),
    ids: tails.ids,
    positions: tails.positions,
    slots: tails.map(0).slots!,
    history: own(createTensor(gpu, "new tokens", [count, capacity], { dtype: "u32" })),
  };
  const onHost = temperature > 0 && topK > MAX_TOP_K;
  const kept = onHost ? own(createTensor(gpu, "logits", [count, dims.vocab])) : undefined;
  // A number a prompt and step, in the order in which the host draws.
  const uniforms = temperature > 0 && !onHost
    ? own(
      fromHost(gpu, "uniforms", [capacity, count], Float32Array.from({ length: capacity * count }, random)),
    )
    : undefined;

  const predict = (ctx: Ctx, rows: Rows, span: Span) => {
    const h = finalNorm(ctx, model, forward(ctx, model, rows, { ...span, cache }));
    const z = logits(ctx, h, weight(model, "head"));
    const { next, positions, start } = state;
    if (kept) copy(ctx, z, kept);
    else if (!uniforms) argmaxRows(ctx, z, next);
    else {
      const k = Math.max(1, Math.floor(topK));
      sampleTopK(ctx, z, { k, temperature, topP, uniforms, positions, start }, next);
    }
  };
  const feed = (ctx: Ctx) => {
    advanceRows(ctx, state, dims.maxPositions);
    const windows = Array.from({ length: dims.layers }, (_, layer) => dims.windows[layer]);
    for (const window of new Set(windows)) {
      advanceQueries(ctx, tails.map(windows.indexOf(window)).queries, window);
    }
  };

  {
    const all = [...sequences, ...fronts];
    using rows = packRows(gpu, all, packing);
    const lasts = sequences.map(({ ids }, i) => rows.rowOf(i, ids.length - 1));
    using select = selectRows(gpu, rows, lasts, all, packing);
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    predict(ctx, rows, { select });
    if (!onHost) feed(ctx);
    using plan = ctx.r.finish("prefill");
    plan.run();
  }
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  if (onHost) feed(ctx);
  predict(ctx, tails, {});
  if (!onHost) feed(ctx);
  const plan = owned.use(ctx.r.finish("decode"));

  const texts: number[][] = prompts.map(() => []);
  const drawn = async () => {
    if (texts[0].length > 0) plan.run();
    const all = await readF32(gpu, kept!);
    const row = (i: number) => all.subarray(i * dims.vocab, (i + 1) * dims.vocab);
    texts.forEach((ids, i) => ids.push(sample(row(i), options, random)));
    writeTensor(gpu, state.next, texts.map((ids) => ids.at(-1)!));
    return texts;
  };
  let noted = 1;
  const replayed = async (steps: number) => {
    // The first token came with the prompts.
    const done = texts[0].length;
    plan.run(done + steps - noted);
    noted = done + steps;
    const flat = (await readTensors(gpu, state.history))[0] as Uint32Array;
    texts.forEach((ids, i) => ids.push(...flat.subarray(i * capacity + done, i * capacity + noted)));
    return texts;
  };
  const resources = owned.move();
  return { next: onHost ? drawn : replayed, [Symbol.dispose]: () => resources.dispose() };
}

/**
 * Slots of the cache: each prompt's own run with room for `capacity` new tokens, then what stands before
 * prompts, once for all that share it.
 */
function placeInCache(routes: readonly Route[], capacity: number) {
  let slots = 0;
  const take = (count: number) => (slots += count) - count;
  const own = routes.map(({ prompt }) => take(prompt.length + capacity));
  const fronts = new Map<string, Sequence & { slot: number }>();
  const sequences = routes.map(({ front, prompt }, i): Sequence & { slot: number } => {
    const [slot, count] = [own[i], front.length];
    if (count === 0) return { ids: prompt, slot };
    const key = front.join();
    const before = fronts.get(key) ?? { ids: front, slot: take(count) };
    fronts.set(key, before);
    return { ids: [...front, ...prompt], from: count, slot, prefix: { slot: before.slot, count } };
  });
  return { sequences, fronts: [...fronts.values()], slots };
}
