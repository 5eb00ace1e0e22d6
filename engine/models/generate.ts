/**
 * Text generation. Greedy decoding stays on the device: a plan for one row a prompt, its position and next
 * token advanced by kernels, replayed many times between two waits. Sampling reads the logits of each step.
 */
import { InputError } from "../io/errors.ts";
import { argmaxRows } from "../ops/argmax.ts";
import type { Ctx } from "../ops/context.ts";
import { advanceQueries, advanceRows, type DecodeState } from "../ops/decode.ts";
import { copy } from "../ops/elementwise.ts";
import { logits } from "../ops/vocab_loss.ts";
import { createTensor, freeTensor } from "../tensor/tensor.ts";
import { fromHost, readF32, readTensors, writeTensor } from "../tensor/transfer.ts";
import { finalNorm, forward, type Model, weight } from "./model.ts";
import { createCache, packRows, selectRows } from "./rows.ts";
import { sample, type Sampling, seededRandom } from "./sample.ts";

export type { Sampling } from "./sample.ts";

/** How to generate. Greedy unless `temperature` is above 0. */
export interface GenerateOptions extends Sampling {
  /** New tokens at most; fewer when the context ends. */
  maxTokens: number;
  /** Tokens that end a text; they are not part of the result. Default: the model's end-of-text tokens. */
  stop?: readonly number[];
  /** Called with the number of new tokens after each wait. */
  onTokens?: (tokens: number) => void;
}

/** Greedy steps between two looks at the stop tokens. */
const STEPS_PER_WAIT = 16;

/**
 * Continues each prompt (token ids); returns the new ids alone.
 * @throws {InputError} for an empty prompt or one that fills the context
 */
export async function generate(
  model: Model,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
): Promise<number[][]> {
  const { gpu, dims, config } = model;
  for (const ids of prompts) {
    if (ids.length === 0) throw new InputError("Cannot continue an empty prompt");
    if (ids.length >= dims.maxPositions) {
      throw new InputError(
        `The prompt has ${ids.length} tokens; the model's context holds ${dims.maxPositions}`,
      );
    }
  }
  if (prompts.length === 0) return [];
  const room = prompts.map((ids) => Math.min(options.maxTokens, dims.maxPositions - ids.length));
  const capacity = Math.max(...room);
  const stop = new Set(
    options.stop ?? (config.type === "llama" ? config.stops : config.eos === undefined ? [] : [config.eos]),
  );
  const sampled = (options.temperature ?? 0) > 0;

  let slots = 0;
  const sequences = prompts.map((ids) => {
    const slot = slots;
    slots += ids.length + capacity;
    return { ids, slot };
  });
  using cache = createCache(gpu, { layers: dims.layers, slots, width: dims.kvHeads * dims.headDim });
  const packing = { cached: true, windows: dims.windows };
  const z = createTensor(gpu, "logits", [prompts.length, dims.vocab]);
  const next = createTensor(gpu, "next token", [prompts.length], { dtype: "u32" });
  const start = fromHost(gpu, "start", [prompts.length], Uint32Array.from(prompts, (ids) => ids.length));
  const history = createTensor(gpu, "new tokens", [prompts.length, capacity], { dtype: "u32" });
  try {
    {
      using rows = packRows(gpu, sequences, packing);
      const lasts = sequences.map(({ ids }, i) => rows.rowOf(i, ids.length - 1));
      using select = selectRows(gpu, rows, lasts, sequences, packing);
      const ctx: Ctx = { gpu, r: gpu.recorder() };
      const h = forward(ctx, model, rows, { cache, select });
      copy(ctx, logits(ctx, finalNorm(ctx, model, h), weight(model, "head")), z);
      argmaxRows(ctx, z, next);
      using plan = ctx.r.finish("prefill");
      plan.run();
    }
    const tails = sequences.map((s) => ({ ...s, from: s.ids.length - 1 }));
    using rows = packRows(gpu, tails, packing);
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const first = rows.map(0);
    const state: DecodeState = {
      next,
      start,
      ids: rows.ids,
      positions: rows.positions,
      slots: first.slots!,
      history,
    };
    advanceRows(ctx, state, dims.maxPositions);
    const windows = new Set(Array.from({ length: dims.layers }, (_, layer) => dims.windows[layer]));
    for (const window of windows) {
      const layer = Array.from({ length: dims.layers }, (_, n) => n).find((n) => dims.windows[n] === window)!;
      advanceQueries(ctx, rows.map(layer).queries, window);
    }
    const h = forward(ctx, model, rows, { cache });
    copy(ctx, logits(ctx, finalNorm(ctx, model, h), weight(model, "head")), z);
    argmaxRows(ctx, z, next);
    using plan = ctx.r.finish("decode");

    const random = seededRandom(options.seed ?? 0);
    const chooseOnHost = async () => {
      const all = await readF32(gpu, z);
      const row = (i: number) => all.subarray(i * dims.vocab, (i + 1) * dims.vocab);
      writeTensor(gpu, next, Uint32Array.from(prompts, (_, i) => sample(row(i), options, random)));
    };
    let texts: number[][] = prompts.map(() => []);
    for (let done = 0; done < capacity;) {
      const steps = sampled ? 1 : Math.min(STEPS_PER_WAIT, capacity - done);
      if (sampled) await chooseOnHost();
      plan.run(steps);
      done += steps;
      if (sampled && done % STEPS_PER_WAIT && done < capacity) continue;
      const flat = (await readTensors(gpu, history))[0] as Uint32Array;
      texts = room.map((most, i) => {
        const first = i * capacity;
        return untilStop([...flat.subarray(first, first + Math.min(done, most))], stop);
      });
      options.onTokens?.(done);
      if (texts.every((ids) => ids.length < done)) break;
    }
    return texts;
  } finally {
    [z, next, start, history].forEach((t) => freeTensor(gpu, t));
  }
}

function untilStop(ids: number[], stop: ReadonlySet<number>): number[] {
  const end = ids.findIndex((id) => stop.has(id));
  return end < 0 ? ids : ids.slice(0, end);
}
