/**
 * Prompts through the model as it is, once: what attributions of many points share. Keys and values of all
 * tokens stay in a cache; of the last token, the residual stream entering each layer and the vector whose
 * coordinates are the neurons.
 */
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { createCache, type KvCache, packRows, type Sequence } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { add, copy } from "../../engine/ops/elementwise.ts";
import { capture, gatherRows } from "../../engine/ops/rows.ts";
import { vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import { keyFrom, preActivation } from "./pre_activation.ts";

/** A prompt as token ids and the token whose probability is attributed. */
export interface Question {
  ids: readonly number[];
  /** The answer's token, predicted after the last id. */
  answer: number;
}

/**
 * Which vector's coordinates are the neurons: what the down projection reads, or what the activation does.
 */
export type NeuronSite = "key" | "pre-activation";

/** What the model makes of prompts, on the device; dispose it to free the memory. */
export interface Clean extends Disposable {
  readonly cache: KvCache;
  /** Residual stream entering each layer at the last tokens, [Q, D]. */
  readonly streams: readonly Tensor[];
  /** The neurons at the last tokens by layer and question, [F]. */
  readonly values: readonly (readonly Float32Array[])[];
  /** P(answer) and the likeliest token of each question. */
  readonly predictions: readonly { probability: number; says: number }[];
  /** A live row that takes the place of a question's last token; rows have numbers below `rows`. */
  pointAt(question: number, row: number): Sequence;
  /**
   * The down projection's input for neurons [n, F] in a layer, those of question `question[i]` in row i (u32
   * [n]). Gradient to the neurons.
   */
  keyOf(ctx: Ctx, layer: number, neurons: Tensor, question: Tensor): Tensor;
}

/**
 * Runs the prompts. Waits for the GPU once.
 * @param rows slots to keep for live rows
 */
export async function readPrompts(
  model: Model,
  questions: readonly Question[],
  { rows: live, at }: { rows: number; at: NeuronSite },
): Promise<Clean> {
  const { gpu, dims } = model;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, (t) => freeTensor(gpu, t));
  const n = questions.length;
  const each = (label: string, width: number) =>
    Array.from({ length: dims.layers }, () => own(createTensor(gpu, label, [n, width])));
  const u32 = (label: string, values: readonly number[]) =>
    own(fromHost(gpu, label, [values.length], Uint32Array.from(values)));

  const ends = questions.map((_, q) =>
    questions.slice(0, q + 1).reduce((sum, { ids }) => sum + ids.length, 0)
  );
  const prompts = questions.map(({ ids }, q) => ({ ids, slot: ends[q] - ids.length }));
  const slots = ends[n - 1];
  const width = dims.kvHeads * dims.headDim;
  const cache = owned.use(createCache(gpu, { layers: dims.layers, slots: slots + live, width }));
  using rows = packRows(gpu, prompts, { cached: true, windows: dims.windows });
  const lasts = u32("last rows", questions.map(({ ids }, q) => rows.rowOf(q, ids.length - 1)));
  const streams = each("stream", dims.width), neurons = each("neurons", dims.inner);
  const ups = at === "pre-activation" && model.weights.has("layer.0.mlp.gate")
    ? each("gated values", dims.inner)
    : undefined;

  const hooks = new Map<Site, Hook>();
  for (let layer = 0; layer < dims.layers; layer++) {
    hooks.set(
      `layer.${layer}.in`,
      (ctx, value) => (capture(ctx, value, lasts, streams[layer]), value),
    );
    if (at === "key") {
      hooks.set(
        `layer.${layer}.mlp.key`,
        (ctx, value) => (capture(ctx, value, lasts, neurons[layer]), value),
      );
      continue;
    }
    hooks.set(`layer.${layer}.attn.out`, (ctx, value) => {
      const mid = add(ctx, streams[layer], gatherRows(ctx, value, lasts));
      const { z, up } = preActivation(ctx, model, layer, mid);
      copy(ctx, z, neurons[layer]);
      if (up) copy(ctx, up, ups![layer]);
      return value;
    });
  }
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const h = finalNorm(ctx, model, gatherRows(ctx, forward(ctx, model, rows, { cache, hooks }), lasts));
  const logProbs = own(createTensor(gpu, "log-probabilities", [n]));
  const best = own(createTensor(gpu, "likeliest tokens", [n], { dtype: "u32" }));
  const asked = {
    rows: u32("questions", questions.map((_, q) => q)),
    targets: u32("answers", questions.map((q) => q.answer)),
  };
  vocabScores(ctx, h, weight(model, "head"), asked, { logProbs, best });
  using plan = ctx.r.finish("read prompts");
  plan.run();
  const [p, says, ...values] = await readTensors(gpu, logProbs, best, ...neurons);
  const kept = owned.move();
  return {
    cache,
    streams,
    values: values.map((all) =>
      questions.map((_, q) => (all as Float32Array).subarray(q * dims.inner, (q + 1) * dims.inner))
    ),
    predictions: questions.map((_, q) => ({ probability: Math.exp(p[q]), says: says[q] })),
    pointAt(question, row) {
      const { ids, slot } = prompts[question];
      const from = ids.length - 1;
      return { ids, from, slot: slots + row, ...from > 0 && { prefix: { slot, count: from } } };
    },
    keyOf(ctx, layer, z, question) {
      if (at === "key") return z;
      return keyFrom(ctx, model, { z, up: ups && gatherRows(ctx, ups[layer], question) });
    },
    [Symbol.dispose]: () => kept.dispose(),
  };
}
