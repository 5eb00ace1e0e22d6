/**
 * Integrated gradients of a prediction to the neurons of the MLPs (Dai et al. 2022, "Knowledge Neurons in
 * Pretrained Transformers", section 3.1; guide section 11). A neuron is a coordinate of a layer's activation
 * w at the position that predicts the answer. A whole layer is scaled at a time:
 *
 *   Attr_i = w_i/m · Σ_s ∂P(answer | w := α_s w)/∂w_i      P a probability, not its logarithm
 *
 * Only the last position changes, and only from the scaled layer up. So the prompt is computed once, with
 * the keys and values of its tokens, and each point α_s of each layer is one row from its own layer on. All
 * points of several layers and prompts go through the model together: a row joins the batch at its layer.
 * This is exact by causality (guide section 14).
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows, type Rows } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { gatherRows, scatterRows } from "../../engine/ops/rows.ts";
import { vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import { type Clean, type NeuronSite, type Question, readPrompts } from "./clean.ts";

/** How to attribute. */
export interface AttributionOptions {
  /** Points of the integral. */
  steps: number;
  /**
   * Where they lie: `left` at s/m for s < m, as the authors have it; `both-ends` at s/(m−1), as EleutherAI's
   * code and EasyEdit have it.
   */
  points: "left" | "both-ends";
  /** The vector that is scaled. */
  at: NeuronSite;
  /** Rows of a plan at most; default what fits a GiB. At least one layer of one question runs at a time. */
  maxRows?: number;
  /** Done and total in some unit of work. */
  onProgress?: (done: number, total: number) => void;
}

/** What {@link attribute} finds for a question. */
export interface Attribution {
  /** Attr of each layer's neurons, [F] each. */
  scores: Float32Array[];
  /** P(answer) of the model as it is. */
  probability: number;
  /** The likeliest token. */
  says: number;
}

/** Memory for the rows of one plan, with their gradients. */
const WORK_BYTES = 1 << 30;
/** Rows of one plan at most: more are no faster. */
const MAX_ROWS = 640;

/**
 * Attributes all questions. Waits for the GPU once for the prompts and once a plan.
 * @throws {GpuError} when a probability is not finite, naming question and layer
 */
export async function attribute(
  model: Model,
  questions: readonly Question[],
  options: AttributionOptions,
): Promise<Attribution[]> {
  const { layers, inner } = model.dims;
  const alphas = pointsOf(options);
  const units = (options.maxRows ?? rowsAtOnce(model)) / alphas.length;
  const scores = questions.map(() => Array.from({ length: layers }, () => new Float32Array(inner)));
  // Blocks that a layer's rows pass, the head among them: what is left is told in these.
  const work = (layer: number) => layers - layer + 1;
  const total = questions.length * layers * (layers + 3) / 2;
  let done = 0;
  const known: { probability: number; says: number }[] = [];
  const { atOnce } = split(layers, questions.length, units);
  for (let first = 0; first < questions.length; first += atOnce) {
    const some = questions.slice(first, first + atOnce);
    const { span } = split(layers, some.length, units);
    using clean = await readPrompts(model, some, {
      rows: some.length * span * alphas.length,
      at: options.at,
    });
    known.push(...clean.predictions);
    for (let from = 0; from < layers; from += span) {
      const to = Math.min(layers, from + span);
      const found = await gradients(model, some, clean, { from, to, alphas });
      for (let layer = from; layer < to; layer++) {
        some.forEach((_, q) => weighted(scores[first + q][layer], clean.values[layer][q], found(layer, q)));
        done += some.length * work(layer);
      }
      options.onProgress?.(done, total);
    }
  }
  return scores.map((of, q) => ({ scores: of, ...known[q] }));
}

function pointsOf({ steps, points }: AttributionOptions): number[] {
  const apart = points === "left" ? steps : Math.max(1, steps - 1);
  return Array.from({ length: steps }, (_, s) => s / apart);
}

/** Numbers that a row leaves in a block for backward, as in estimate.ts. */
function perBlock({ dims: { width, inner, heads, kvHeads, headDim } }: Model): number {
  return 6 * width + 3 * inner + (2 * heads + 2 * kvHeads) * headDim;
}

function rowsAtOnce(model: Model): number {
  const { kvHeads, headDim, layers } = model.dims;
  // Keys and values are in the cache too.
  const floats = layers * (perBlock(model) + 2 * kvHeads * headDim);
  return Math.min(MAX_ROWS, Math.floor(WORK_BYTES / 4 / floats));
}

/** How many questions run together, and how many layers of them in one plan of so many rows. */
function split(layers: number, questions: number, units: number): { atOnce: number; span: number } {
  const atOnce = Math.max(1, Math.min(questions, Math.floor(units)));
  return { atOnce, span: Math.min(layers, Math.max(1, Math.floor(units / atOnce))) };
}

/**
 * Device bytes beside the weights of the largest plan of {@link attribute}: that of the lowest layers, in which a
 * row passes all layers from its own on. For estimates.
 * @param prompts token ids of each question
 */
export function attributionBytes(
  model: Model,
  prompts: readonly (readonly number[])[],
  steps: number,
): number {
  const { layers, width, inner, vocab, kvHeads, headDim } = model.dims;
  const { atOnce, span } = split(layers, prompts.length, rowsAtOnce(model) / steps);
  const joining = atOnce * steps, rows = joining * span;
  const passed = joining * Array.from({ length: span }, (_, layer) => layers - layer).reduce((a, b) => a + b);
  const tokens = prompts.map(({ length }) => length).toSorted((a, b) => b - a).slice(0, atOnce).reduce((
    a,
    b,
  ) => a + b);
  const cache = (tokens + rows) * 2 * kvHeads * headDim * layers;
  // Logits are made in chunks of the vocabulary, of 16 MiB at most.
  const logits = Math.min(rows * vocab, 1 << 22);
  return 4 * (passed * perBlock(model) + cache + 2 * rows * inner + logits + tokens * width);
}

/** Gradients of P at all points of one layer and question, with the points' probabilities. */
interface PointGradients {
  /** [m, F], of −log P */
  values: Float32Array;
  /** −log P of each point. */
  losses: Float32Array;
}

/** scores = w/m · Σ_s ∂P_s/∂w with ∂P = −P·∂(−log P), in f64. */
function weighted(scores: Float32Array, value: Float32Array, { values, losses }: PointGradients): void {
  const width = scores.length, m = losses.length;
  const sums = new Float64Array(width);
  losses.forEach((loss, s) => {
    const p = Math.exp(-loss);
    for (let i = 0; i < width; i++) sums[i] -= p * values[s * width + i];
  });
  for (let i = 0; i < width; i++) scores[i] = value[i] / m * sums[i];
}

/** Runs all points of layers [from, to): forward, backward, one wait. */
async function gradients(
  model: Model,
  questions: readonly Question[],
  clean: Clean,
  { from, to, alphas }: { from: number; to: number; alphas: readonly number[] },
): Promise<(layer: number, question: number) => PointGradients> {
  const { gpu, dims } = model;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, (t) => freeTensor(gpu, t));
  const u32 = (label: string, values: readonly number[]) =>
    own(fromHost(gpu, label, [values.length], Uint32Array.from(values)));
  const range = (start: number, count: number) => Array.from({ length: count }, (_, i) => start + i);
  const m = alphas.length, joining = questions.length * m;
  const count = joining * (to - from);
  const packing = { cached: true, windows: dims.windows };
  // Rows by layer, then question, then point; those of later layers are not there yet.
  const sequences = range(0, count).map((row) => clean.pointAt(Math.floor(row % joining / m), row));
  const rowsOf = (n: number) => owned.use(packRows(gpu, sequences.slice(0, n), packing));
  const repeated = u32("question of a point", range(0, joining).map((i) => Math.floor(i / m)));

  const tape = new Tape();
  const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
  const inputs: Tensor[] = [];
  let h: Tensor | undefined;
  let rows: Rows;
  for (let layer = from; layer < to; layer++) {
    const before = (layer - from) * joining;
    const old = before > 0 ? u32("earlier rows", range(0, before)) : undefined;
    const fresh = u32("joining rows", range(before, joining));
    const join = (label: string, earlier: Tensor | undefined, joiners: Tensor): Tensor => {
      if (!old) return joiners;
      const all = temp(ctx, label, [before + joining, joiners.shape[1]]);
      scatterRows(ctx, earlier!, old, all);
      scatterRows(ctx, joiners, fresh, all);
      return all;
    };
    const scaled = own(fromHost(gpu, "scaled", [joining, dims.inner], scaledBy(alphas, clean.values[layer])));
    tape.require(scaled);
    inputs.push(scaled);
    const inject: Hook = (ctx, value) => {
      const key = clean.keyOf(ctx, layer, scaled, repeated);
      return join("keys with the scaled", old && gatherRows(ctx, value, old), key);
    };
    h = join("stream", h, gatherRows(ctx, clean.streams[layer], repeated));
    rows = rowsOf(before + joining);
    const hooks = new Map<Site, Hook>([[`layer.${layer}.mlp.key`, inject]]);
    h = forward(ctx, model, rows, { from: layer, to: layer + 1, input: h, cache: clean.cache, hooks });
  }
  h = forward(ctx, model, rows!, { from: to, input: h, cache: clean.cache });
  const answers = range(0, count).map((row) => questions[Math.floor(row % joining / m)].answer);
  const loss = vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), {
    targets: u32("answers", answers),
    weights: own(fromHost(gpu, "ones", [count], new Float32Array(count).fill(1))),
  });
  const losses = own(createTensor(gpu, "losses", [count]));
  copy(ctx, loss, losses);
  tape.backward();
  const grads = inputs.map((input) => {
    const kept = own(createTensor(gpu, "gradients", input.shape));
    copy(ctx, tape.grad(input)!, kept);
    return kept;
  });
  using plan = ctx.r.finish("attribute");
  plan.run();
  const [l, ...g] = await readTensors(gpu, losses, ...grads) as Float32Array[];
  const bad = l.findIndex((x) => !Number.isFinite(x));
  if (bad >= 0) {
    const layer = from + Math.floor(bad / joining), question = Math.floor(bad % joining / m);
    throw new GpuError(`P(answer) of question ${question} is not finite with layer ${layer} scaled`);
  }
  return (layer, question) => {
    const at = layer - from, row = question * m;
    return {
      values: g[at].subarray(row * dims.inner, (row + m) * dims.inner),
      losses: l.subarray(at * joining + row, at * joining + row + m),
    };
  };
}

/** Each question's vector at each point, one after another: [Q·m, F]. */
function scaledBy(alphas: readonly number[], values: readonly Float32Array[]): Float32Array {
  const width = values[0].length;
  const out = new Float32Array(values.length * alphas.length * width);
  values.forEach((value, q) =>
    alphas.forEach((alpha, s) => {
      const at = (q * alphas.length + s) * width;
      for (let i = 0; i < width; i++) out[at + i] = alpha * value[i];
    })
  );
  return out;
}
