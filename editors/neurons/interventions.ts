/**
 * Knowledge neurons on and off (Dai et al. 2022, section 4.2): the probability of answers with the
 * activations of some neurons multiplied, at the position that predicts the answer only. 0 suppresses, 2
 * amplifies.
 */
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { addToRows, gatherRows } from "../../engine/ops/rows.ts";
import { vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { Question } from "./clean.ts";
import type { Neuron } from "./select.ts";

/** What the authors multiply activations with. */
export const SUPPRESS = 0, AMPLIFY = 2;

/** What a model says to a question. */
export interface Prediction {
  /** P(answer) */
  probability: number;
  /** The likeliest token. */
  says: number;
}

/** Predictions with the neurons' activations multiplied by a factor. Waits for the GPU once. */
export async function predictWith(
  model: Model,
  questions: readonly Question[],
  neurons: readonly Neuron[],
  factor: number,
): Promise<Prediction[]> {
  const { gpu, dims } = model;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, (t) => freeTensor(gpu, t));
  const u32 = (label: string, values: readonly number[]) =>
    own(fromHost(gpu, label, [values.length], Uint32Array.from(values)));
  const n = questions.length;
  using rows = packRows(gpu, questions, { windows: dims.windows });
  const lasts = u32("last rows", questions.map(({ ids }, q) => rows.rowOf(q, ids.length - 1)));
  const order = u32("questions", questions.map((_, q) => q));

  const hooks = new Map<Site, Hook>();
  for (const [layer, group] of Map.groupBy(neurons, ({ layer }) => layer)) {
    const units = unitVectors(group, dims.inner);
    const chosen = own(fromHost(gpu, "chosen neurons", [dims.inner, group.length], units));
    hooks.set(`layer.${layer}.mlp.key`, (ctx, key) => {
      const values = temp(ctx, "activations", [n, group.length]);
      matmul(ctx, "nn", gatherRows(ctx, key, lasts), chosen, values);
      const change = temp(ctx, "change of activations", [n, dims.inner]);
      matmul(ctx, "nt", values, chosen, change, { alpha: factor - 1 });
      return addToRows(ctx, key, lasts, order, change);
    });
  }
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const h = finalNorm(ctx, model, gatherRows(ctx, forward(ctx, model, rows, { hooks }), lasts));
  const logProbs = own(createTensor(gpu, "log-probabilities", [n]));
  const best = own(createTensor(gpu, "likeliest tokens", [n], { dtype: "u32" }));
  const targets = u32("answers", questions.map(({ answer }) => answer));
  vocabScores(ctx, h, weight(model, "head"), { rows: order, targets }, { logProbs, best });
  using plan = ctx.r.finish("predict");
  plan.run();
  const [p, says] = await readTensors(gpu, logProbs, best);
  return questions.map((_, q) => ({ probability: Math.exp(p[q]), says: says[q] }));
}

/** Unit vectors of neurons as columns, [F, r] row-major. */
export function unitVectors(neurons: readonly Neuron[], inner: number): Float32Array {
  const out = new Float32Array(inner * neurons.length);
  neurons.forEach(({ index }, r) => out[index * neurons.length + r] = 1);
  return out;
}
