/**
 * Drift: what an edit did to the model elsewhere (guide section 12). Measured on neutral prompts and prose,
 * against a baseline that is taken once from the unedited model:
 *
 *   drift.perplexity    exp of the mean −log p of the prose's tokens, each passage read by itself
 *   drift.kl            mean KL(before‖after) of the next-token distributions after the prompts, nats
 *   drift.kl_max        the largest of them
 *   drift.norm_growth   largest ‖W+ΔW‖/‖W‖ − 1 of the edited weights
 *   drift.repetition    mean n-gram entropy of greedy continuations of a few prompts, bits; low values mean
 *                       that texts repeat themselves
 *
 * One forward pass does for prose and prompts. Layers below the lowest edited one give what they always gave,
 * so their output is kept from the first measurement and the pass begins above them.
 */
import { generate } from "../engine/models/generate.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { nextLogits } from "../engine/models/next.ts";
import { changedRoles } from "../engine/models/replace.ts";
import { isRouted, routesOf } from "../engine/models/route.ts";
import { packRows, selectRows } from "../engine/models/rows.ts";
import { logSumExp } from "../engine/models/sample.ts";
import type { Hooks } from "../engine/models/sites.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { copy } from "../engine/ops/elementwise.ts";
import { capture, gatherRows } from "../engine/ops/rows.ts";
import { logits, vocabScores } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";
import { cleanText, nGramEntropy } from "./metrics/text.ts";
import { NEUTRAL, type NeutralText, passagesOf } from "./neutral.ts";
import { largestGrowth, overlaidChanges } from "./norms.ts";
import type { Metrics } from "./records.ts";

export { weightChanges, type WeightGrowth } from "./norms.ts";

/** What is measured. */
export interface DriftOptions {
  /** The prose that is read; false leaves the perplexity out. Default "short": one passage of eight. */
  text?: NeutralText | false;
  /** How many of the neutral prompts are asked; default all. */
  prompts?: number;
  /** Continue prompts to measure repetition: most of the time of a measurement. Default true. */
  repetition?: boolean;
}

/** The unedited model on the neutral texts, on the host; dispose it to let the larger part of it go. */
export interface DriftBaseline extends Disposable {
  /** Its own values: KL and growth are 0. */
  readonly metrics: Metrics;
  /** Version of the neutral texts. */
  readonly version: number;
  /** Token ids of the prompts, and of pieces of prose that fit the context. */
  readonly prompts: readonly (readonly number[])[];
  readonly windows: readonly (readonly number[])[];
  readonly repetition: boolean;
  /** [prompts, vocab]: logits after each prompt. */
  readonly logits: Float32Array;
  /** By layer: the residual stream of all rows that enters it when nothing below is edited. */
  readonly residuals: Map<number, Float32Array>;
}

/** Prompts that are continued for `drift.repetition`, and new tokens of each. */
const CONTINUED = 5, CONTINUED_TOKENS = 40;

/** Takes the baseline. Call it on the unedited model, once. */
export async function driftBaseline(model: Model, options: DriftOptions = {}): Promise<DriftBaseline> {
  const { text = "short", prompts = NEUTRAL.prompts.length, repetition = true } = options;
  const { tokenizer, dims } = model;
  const asked = {
    prompts: NEUTRAL.prompts.slice(0, prompts).map((prompt) => tokenizer.encode(prompt)),
    windows: (text ? passagesOf(text) : []).flatMap((passage) =>
      windowsOf(tokenizer.encode(passage), dims.maxPositions)
    ),
  };
  const residuals = new Map<number, Float32Array>();
  const { logits, logProbs } = await read(model, { ...asked, residuals });
  const metrics = {
    ...perplexity(logProbs),
    "drift.kl": 0,
    "drift.kl_max": 0,
    "drift.norm_growth": 0,
    ...await repetitionOf(model, { ...asked, repetition }),
  };
  const dispose = () => residuals.clear();
  return {
    metrics,
    version: NEUTRAL.version,
    ...asked,
    repetition,
    logits,
    residuals,
    [Symbol.dispose]: dispose,
  };
}

/** Measures the model as it is now: with the edits that lie on it. */
export async function drift(model: Model, baseline: DriftBaseline): Promise<Metrics> {
  const { logits, logProbs } = await read(model, baseline);
  await putRouted(model, baseline.prompts, logits);
  const kls = divergences(baseline.logits, logits, model.dims.vocab);
  return {
    ...perplexity(logProbs),
    "drift.kl": kls.reduce((sum, kl) => sum + kl, 0) / kls.length,
    "drift.kl_max": Math.max(...kls),
    "drift.norm_growth": largestGrowth(await overlaidChanges(model)),
    ...await repetitionOf(model, baseline),
  };
}

/** Prompts that an edit answers in another way than the weights alone do. Prose is no prompt: it stays as it is. */
async function putRouted(
  model: Model,
  prompts: DriftBaseline["prompts"],
  logits: Float32Array,
): Promise<void> {
  if (!isRouted(model)) return;
  const routes = await routesOf(model, prompts);
  const claimed = [...routes.keys()].filter((i) => routes[i].claimed);
  const rows = await nextLogits(model, claimed.map((i) => prompts[i]));
  claimed.forEach((i, at) => logits.set(rows[at], i * model.dims.vocab));
}

/** Cuts a text's ids where the context ends; a piece of one token predicts nothing. */
function windowsOf(ids: readonly number[], length: number): number[][] {
  const count = Math.ceil(ids.length / length);
  return Array.from({ length: count }, (_, i) => ids.slice(i * length, (i + 1) * length))
    .filter((piece) => piece.length > 1);
}

function perplexity(logProbs: Float32Array): Metrics {
  if (logProbs.length === 0) return {};
  return { "drift.perplexity": Math.exp(-logProbs.reduce((sum, x) => sum + x, 0) / logProbs.length) };
}

async function repetitionOf(
  model: Model,
  { prompts, repetition }: Pick<DriftBaseline, "prompts" | "repetition">,
): Promise<Metrics> {
  if (!repetition) return {};
  const { tokenizer } = model;
  // A text goes on behind its end: short texts cannot have a high entropy, so all get the same length.
  const options = { maxTokens: CONTINUED_TOKENS, stop: [] };
  const texts = await generate(model, prompts.slice(0, CONTINUED), options);
  const entropies = texts.map((ids, i) =>
    nGramEntropy(cleanText(NEUTRAL.prompts[i] + tokenizer.decode(ids)))
  );
  return { "drift.repetition": entropies.reduce((sum, x) => sum + x, 0) / entropies.length };
}

/** KL(p‖q) in nats of each row of two sets of logits [rows, vocab], in f64; equal rows give 0. */
export function divergences(before: Float32Array, after: Float32Array, vocab: number): number[] {
  return Array.from({ length: before.length / vocab }, (_, row) => {
    const z = before.subarray(row * vocab, (row + 1) * vocab);
    const y = after.subarray(row * vocab, (row + 1) * vocab);
    const zSum = logSumExp(z), ySum = logSumExp(y);
    let kl = 0;
    for (let i = 0; i < vocab; i++) kl += Math.exp(z[i] - zSum) * (z[i] - zSum - (y[i] - ySum));
    return Math.max(0, kl);
  });
}

/** The lowest layer with an edit on it; undefined when nothing is known to be edited. */
function lowestEdited(model: Model): number | undefined {
  const { weights, dims, parts } = model;
  const overlaid = [...weights.values()].filter(({ overlays }) => overlays.length > 0).map(({ role }) =>
    role
  );
  const beside = parts.flatMap(({ at }) => [...at.keys()]);
  const layers = [...overlaid, ...changedRoles(model), ...beside].map((role) =>
    /^(head|final)\b/.test(role) ? dims.layers - 1 : Number(role.match(/^layer\.(\d+)\./)?.[1] ?? 0)
  );
  return layers.length ? Math.min(...layers) : undefined;
}

/**
 * One pass over prose and prompts.
 * @returns the log-probabilities of the prose's tokens, and the logits after each prompt
 */
async function read(
  model: Model,
  { prompts, windows, residuals }: Pick<DriftBaseline, "prompts" | "windows" | "residuals">,
): Promise<{ logProbs: Float32Array; logits: Float32Array }> {
  const { gpu, dims } = model;
  const from = lowestEdited(model) ?? 0;
  const below = from > 0 ? residuals.get(from) : undefined;
  // The last token of a window is predicted, never fed.
  const sequences = [...windows.map((ids) => ids.slice(0, -1)), ...prompts].map((ids) => ({ ids }));
  const packing = { windows: dims.windows };
  using own = new DisposableStack();
  const keep = (t: Tensor) => own.adopt(t, (kept) => freeTensor(gpu, kept));
  const rows = own.use(packRows(gpu, sequences, packing));
  const chosen = sequences.flatMap(({ ids }, i) =>
    i < windows.length ? ids.map((_, position) => rows.rowOf(i, position)) : [rows.rowOf(i, ids.length - 1)]
  );
  const select = own.use(selectRows(gpu, rows, chosen, sequences, packing));
  const targets = windows.flatMap((ids) => ids.slice(1));
  const n = targets.length;
  const u32 = (label: string, values: readonly number[]) =>
    keep(fromHost(gpu, label, [values.length], Uint32Array.from(values)));
  const z = keep(createTensor(gpu, "neutral logits", [prompts.length, dims.vocab]));
  const out: Tensor[] = [z];

  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const shape = [rows.count, dims.width];
  let entering: Tensor | undefined;
  const hooks: Hooks = from > 0 && !below
    ? new Map([[`layer.${from}.in` as const, (ctx: Ctx, h: Tensor) => {
      entering = keep(createTensor(gpu, "residual", shape));
      capture(ctx, h, undefined, entering);
      return h;
    }]])
    : new Map();
  const span = below ? { from, input: keep(fromHost(gpu, "residual", shape, below)) } : {};
  const h = finalNorm(ctx, model, forward(ctx, model, rows, { ...span, hooks, select }));
  const head = weight(model, "head");
  if (n > 0) {
    const prose = gatherRows(ctx, h, u32("prose rows", targets.map((_, i) => i)));
    const all = u32("scored rows", targets.map((_, i) => i));
    const logProbs = keep(createTensor(gpu, "log-probabilities", [n]));
    const best = keep(createTensor(gpu, "likeliest tokens", [n], { dtype: "u32" }));
    vocabScores(ctx, prose, head, { rows: all, targets: u32("prose", targets) }, { logProbs, best });
    out.push(logProbs);
  }
  const ends = gatherRows(ctx, h, u32("prompt ends", prompts.map((_, i) => n + i)));
  copy(ctx, logits(ctx, ends, head), z);
  using plan = ctx.r.finish("drift");
  plan.run();
  if (entering) out.push(entering);
  const values = await readTensors(gpu, ...out) as Float32Array[];
  if (entering) residuals.set(from, values.at(-1)!);
  return { logits: values[0], logProbs: n > 0 ? values[1] : new Float32Array() };
}
