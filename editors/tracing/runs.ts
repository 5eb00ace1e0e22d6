/**
 * The clean and the corrupted runs of a prompt, once, with all that the cells of its trace begin from: every
 * residual stream, every module's output, keys and values (guide sections 12 and 14).
 */
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { createCache, type KvCache, packRows } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { add, copy } from "../../engine/ops/elementwise.ts";
import { addToRows, gatherRows } from "../../engine/ops/rows.ts";
import { vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { Cell, Module } from "./cells.ts";

/** A prompt as token ids, its subject's tokens [first, end), and the token whose probability is traced. */
export interface TracePrompt {
  ids: readonly number[];
  subject: readonly [first: number, end: number];
  answer: number;
}

/**
 * What the runs leave on the device. Rows are run·T + position of T tokens; run 0 is clean, the others see one
 * draw of noise each. Dispose it to free the memory.
 */
export interface Runs extends Disposable {
  /** How many runs. */
  readonly count: number;
  /** The residual stream entering each layer, and last the one that leaves the model, [rows, D]. */
  readonly streams: readonly Tensor[];
  /** What each layer's module says, [rows, D]; only for modules that cells hold. */
  readonly outputs: Readonly<Record<Module, readonly Tensor[]>>;
  /** The stream leaving a layer in which the module's output was restored in every row by itself, [rows, D]. */
  readonly restored: ReadonlyMap<string, Tensor>;
  /** Keys and values of all rows; slots are rows. */
  readonly cache: KvCache;
  /** P(answer) of the clean run, and of each corrupted one. */
  readonly clean: number;
  readonly corrupted: readonly number[];
}

/** The name in {@link Runs.restored} of the row that a cell begins with. */
export function restoredName(module: Module, layer: number): string {
  return `${module} ${layer}`;
}

/**
 * Runs the prompt clean and with each draw of noise. Waits for the GPU once.
 * @param noise draws of [subject tokens, D], one after another, added to the subject's embeddings
 */
export async function readRuns(
  model: Model,
  { ids, subject: [first, end], answer }: TracePrompt,
  noise: Float32Array,
  cells: readonly Cell[],
): Promise<Runs> {
  const { gpu, dims: { layers, width, kvHeads, headDim, windows } } = model;
  const T = ids.length, count = 1 + noise.length / (width * (end - first)), R = count * T;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, (t) => freeTensor(gpu, t));
  const u32 = (label: string, values: number[]) =>
    own(fromHost(gpu, label, [values.length], Uint32Array.from(values)));
  const each = (label: string, n: number) =>
    Array.from({ length: n }, (_, layer) => own(createTensor(gpu, `${label} ${layer}`, [R, width])));
  const all = Array.from({ length: R }, (_, row) => row);
  const noisy = all.filter((row) => row >= T && row % T >= first && row % T < end);
  const index = {
    noisy: u32("rows with noise", noisy),
    order: u32("draws", noisy.map((_, i) => i)),
    clean: u32("clean rows", all.map((row) => row % T)),
    last: u32("last rows", all.filter((row) => row % T === T - 1)),
    runs: u32("runs", all.slice(0, count)),
    answers: u32("answers", all.slice(0, count).map(() => answer)),
  };
  const draws = own(fromHost(gpu, "noise", [noisy.length, width], noise));

  using kept = new DisposableStack();
  const cache = kept.use(createCache(gpu, { layers, slots: R, width: kvHeads * headDim }));
  const streams = each("stream", layers + 1);
  const held = (module: Module) => cells.some(({ hold }) => hold?.module === module);
  // An MLP alone is restored on top of its layer's attention.
  const begins = (module: Module) =>
    cells.filter(({ start }) => start === module).map(({ from }) => from - 1);
  const starts = { mlp: new Set(begins("mlp")), attn: new Set(begins("attn")) };
  const outputs = {
    attn: held("attn") || starts.mlp.size ? each("attention", layers) : [],
    mlp: held("mlp") ? each("MLP", layers) : [],
  };

  const ctx: Ctx = { gpu, r: gpu.recorder() };
  using rows = packRows(gpu, all.slice(0, count).map((run) => ({ ids, slot: run * T })), {
    cached: true,
    windows,
  });
  const keep = (into: Tensor): Hook => (ctx, value) => (copy(ctx, value, into), value);
  const hooks = new Map<Site, Hook>([
    ["embed", (ctx, value) => addToRows(ctx, value, index.noisy, index.order, draws)],
  ]);
  for (let layer = 0; layer < layers; layer++) {
    hooks.set(`layer.${layer}.in`, keep(streams[layer]));
    for (const module of ["attn", "mlp"] as const) {
      if (outputs[module].length) hooks.set(`layer.${layer}.${module}.out`, keep(outputs[module][layer]));
    }
  }
  copy(ctx, forward(ctx, model, rows, { cache, hooks }), streams[layers]);

  const restored = new Map<string, Tensor>();
  const into = (module: Module, layer: number) => {
    const t = own(createTensor(gpu, `restored ${module} ${layer}`, [R, width]));
    restored.set(restoredName(module, layer), t);
    return t;
  };
  const cleanOf = (ctx: Ctx, t: Tensor) => gatherRows(ctx, t, index.clean);
  for (const layer of starts.mlp) {
    const mid = add(ctx, streams[layer], outputs.attn[layer]);
    copy(ctx, add(ctx, mid, cleanOf(ctx, outputs.mlp[layer])), into("mlp", layer));
  }
  for (const layer of starts.attn) {
    const hooks = new Map<Site, Hook>([
      [`layer.${layer}.attn.out`, (ctx) => cleanOf(ctx, outputs.attn[layer])],
    ]);
    const span = { from: layer, to: layer + 1, input: streams[layer], cache, hooks };
    copy(ctx, forward(ctx, model, rows, span), into("attn", layer));
  }

  const logProbs = own(createTensor(gpu, "log-probabilities", [count]));
  const best = own(createTensor(gpu, "likeliest tokens", [count], { dtype: "u32" }));
  const h = finalNorm(ctx, model, gatherRows(ctx, streams[layers], index.last));
  const asked = { rows: index.runs, targets: index.answers };
  vocabScores(ctx, h, weight(model, "head"), asked, { logProbs, best });
  using plan = ctx.r.finish("clean and corrupted runs");
  plan.run();
  const [logP] = await readTensors(gpu, logProbs);
  const [clean, ...corrupted] = Array.from(logP as Float32Array, Math.exp);
  const stack = new DisposableStack();
  stack.use(owned.move());
  stack.use(kept.move());
  return {
    ...{ count, streams, outputs, restored, cache, clean, corrupted },
    [Symbol.dispose]: () => stack.dispose(),
  };
}
