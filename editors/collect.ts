/**
 * Collects statistics of keys from a text corpus: streamed, several layers in one pass, resumable, and
 * stopped when the direction of an edit, C⁻¹k, no longer turns as the sample doubles.
 */
import { SecondMoment } from "../engine/linalg/moment.ts";
import { factorSpd } from "../engine/linalg/cholesky.ts";
import { forward } from "../engine/models/model.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { packRows } from "../engine/models/rows.ts";
import type { Hook, Site } from "../engine/models/sites.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { capture } from "../engine/ops/rows.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { readF32 } from "../engine/tensor/transfer.ts";
import type { CollectState } from "./collect_state.ts";
import type { LayerStatistics } from "./statistics.ts";

/** What to collect and when to stop. */
export interface CollectOptions {
  layers: readonly number[];
  /** Tokens at most. */
  tokens: number;
  documents: AsyncIterable<string> | Iterable<string>;
  corpus: { name: string; hash: string };
  modelHash: string;
  /** Tokens of a document at most; the rest is left out, as in the reference. */
  maxLength: number;
  /** Stop when the cosine of C⁻¹k before and after doubling the sample is above this; 1 never stops. */
  converged?: number;
  /** An interrupted collection of the same layers to go on from. */
  resume?: CollectState;
  /** Called after each batch; `snapshot` reads the state for saving. */
  onBatch?: (progress: CollectProgress, snapshot: () => Promise<CollectState>) => Promise<void> | void;
}

export interface CollectProgress {
  tokens: number;
  documents: number;
  /** Of the last doubling. */
  convergence?: number;
}

/** Rows of one batch: enough to keep the device busy, few enough to stay small. */
const BATCH_ROWS = 1024;
/** Keys whose C⁻¹k is watched. */
const PROBES = 8;

/** Runs the collection. Position 0 counts, as in the reference; keys are never rounded below f32. */
export async function collectStatistics(
  model: LoadedModel,
  options: CollectOptions,
): Promise<LayerStatistics[]> {
  const { gpu, dims } = model;
  const { layers, converged = 0.999, resume, corpus, modelHash, maxLength } = options;
  using stack = new DisposableStack();
  const moments = layers.map((l) => stack.use(new SecondMoment(gpu, `C of layer ${l}`, dims.inner)));
  const progress: CollectProgress = { tokens: 0, documents: 0 };
  if (resume) {
    const { tokens, documents, convergence } = resume;
    Object.assign(progress, { tokens, documents, convergence });
    moments.forEach((moment, i) => moment.load({ count: tokens, lower: resume.sums[i] }));
  }
  const watch = new Watch(moments[0], resume);
  let skip = progress.documents;
  const sumsNow = async () => {
    const sums: Float64Array[] = [];
    for (const moment of moments) sums.push((await moment.read()).lower);
    return sums;
  };
  const snapshot = async (): Promise<CollectState> => ({
    modelHash,
    corpusHash: corpus.hash,
    maxLength,
    layers: [...layers],
    ...progress,
    sums: await sumsNow(),
    ...watch.state,
  });

  let batch: number[][] = [];
  let rows = 0;
  const flush = async () => {
    if (batch.length === 0) return;
    await addBatch(model, batch, layers, moments, watch);
    progress.tokens += rows;
    progress.documents += batch.length;
    batch = [];
    rows = 0;
    if (converged < 1) progress.convergence = await watch.check(gpu, progress.tokens) ?? progress.convergence;
    await options.onBatch?.(progress, snapshot);
  };
  for await (const text of options.documents) {
    const ids = model.tokenizer.encode(text).slice(0, Math.min(maxLength, dims.maxPositions));
    if (ids.length === 0) continue;
    if (skip > 0) {
      skip--;
      continue;
    }
    const room = options.tokens - progress.tokens - rows;
    if (room <= 0) break;
    batch.push(ids.slice(0, room));
    rows += Math.min(ids.length, room);
    if (rows >= BATCH_ROWS) {
      await flush();
      if ((progress.convergence ?? 0) >= converged) break;
    }
  }
  await flush();
  const sums = await sumsNow();
  return layers.map((layer, i) => ({
    origin: {
      modelHash,
      layer,
      width: dims.inner,
      corpusHash: corpus.hash,
      corpusName: corpus.name,
      ...progress,
      maxLength,
      complete: true,
    },
    lower: Float32Array.from(sums[i], (v) => v / progress.tokens),
  }));
}

/** One forward over whole documents, up to the last wanted layer; its keys go into the sums on the device. */
async function addBatch(
  model: LoadedModel,
  documents: readonly number[][],
  layers: readonly number[],
  moments: readonly SecondMoment[],
  watch: Watch,
): Promise<void> {
  const { gpu, dims } = model;
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  using rows = packRows(gpu, documents.map((ids) => ({ ids })), { windows: dims.windows });
  const probes = watch.wanted ? createTensor(gpu, "probe keys", [rows.count, dims.inner]) : undefined;
  const hooks = new Map<Site, Hook>();
  layers.forEach((layer, i) =>
    hooks.set(`layer.${layer}.mlp.key`, (ctx, keys) => {
      moments[i].add(ctx.r, keys);
      if (i === 0 && probes) capture(ctx, keys, undefined, probes);
      return keys;
    })
  );
  forward(ctx, model, rows, { to: Math.max(...layers) + 1, hooks });
  using plan = ctx.r.finish("collect statistics");
  plan.run();
  if (probes) {
    watch.take(await readF32(gpu, probes), dims.inner);
    freeTensor(gpu, probes);
  } else await gpu.sync();
}

/** Watches how far C⁻¹k of a few keys turns as the sample doubles. */
class Watch {
  #moment: SecondMoment;
  #keys?: Float64Array;
  #last?: Float64Array;
  #next: number;

  constructor(moment: SecondMoment, resume?: CollectState) {
    this.#moment = moment;
    this.#keys = resume?.keys;
    this.#last = resume?.last;
    // Fewer tokens than the key is wide leave C singular: the first look is at four times that.
    this.#next = resume?.next ?? 4 * moment.n;
  }

  /** What a resumed collection needs to look at the same keys at the same tokens. */
  get state(): Pick<CollectState, "keys" | "last" | "next"> {
    return { keys: this.#keys, last: this.#last, next: this.#next };
  }

  get wanted(): boolean {
    return this.#keys === undefined;
  }

  /** Keeps keys spread over the batch. */
  take(keys: Float32Array, width: number): void {
    const rows = keys.length / width;
    this.#keys = new Float64Array(PROBES * width);
    for (let i = 0; i < PROBES; i++) {
      const row = Math.floor((i + 0.5) * rows / PROBES);
      this.#keys.set(keys.subarray(row * width, (row + 1) * width), i * width);
    }
  }

  /** The median cosine between the directions now and at half the tokens, when it is time to look. */
  async check(gpu: LoadedModel["gpu"], tokens: number): Promise<number | undefined> {
    if (tokens < this.#next || !this.#keys) return undefined;
    this.#next = 2 * tokens;
    const factor = await factorSpd(gpu, this.#moment, { name: "C of the sample" });
    const now = await factor.solve(this.#keys, PROBES);
    factor.dispose();
    const before = this.#last;
    this.#last = now;
    if (!before) return undefined;
    const width = this.#moment.n;
    const cosines = Array.from({ length: PROBES }, (_, i) => {
      let ab = 0, aa = 0, bb = 0;
      for (let j = i * width; j < (i + 1) * width; j++) {
        ab += now[j] * before[j];
        aa += now[j] ** 2;
        bb += before[j] ** 2;
      }
      return ab / Math.sqrt(aa * bb);
    });
    return cosines.sort((a, b) => a - b)[PROBES >> 1];
  }
}
