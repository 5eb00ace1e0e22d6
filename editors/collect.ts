/**
 * Collects statistics of keys from a text corpus: streamed, several layers in one pass, resumable, and
 * stopped when the direction of an edit, C⁻¹k, no longer turns as the sample doubles.
 */
import { SecondMoment } from "../engine/linalg/moment.ts";
import { forward } from "../engine/models/model.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { packRows } from "../engine/models/rows.ts";
import type { Hook, Site } from "../engine/models/sites.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { capture } from "../engine/ops/rows.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { readTensors } from "../engine/tensor/transfer.ts";
import type { CollectState } from "./collect_state.ts";
import { cosineOf, Watch } from "./convergence.ts";
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
  /**
   * Stop when the median cosine of C⁻¹k between half of the sample and all of it is above this in every layer;
   * 1 never stops. Default 0.999.
   */
  converged?: number;
  /** An interrupted collection of the same layers to go on from. */
  resume?: CollectState;
  /** Largest buffer of a sum in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
  /** Called after each batch; `snapshot` reads the state for saving. */
  onBatch?: (progress: CollectProgress, snapshot: () => Promise<CollectState>) => Promise<void> | void;
}

export interface CollectProgress {
  tokens: number;
  documents: number;
}

/** Rows of one batch: enough to keep the device busy, few enough to stay small. */
const BATCH_ROWS = 1024;

/** Runs the collection. Position 0 counts, as in the reference; keys are never rounded below f32. */
export async function collectStatistics(
  model: LoadedModel,
  options: CollectOptions,
): Promise<LayerStatistics[]> {
  const { gpu, dims } = model;
  const { layers, converged = 0.999, resume, corpus, modelHash, maxLength, maxShardBytes } = options;
  using stack = new DisposableStack();
  const moments = layers.map((l) =>
    stack.use(new SecondMoment(gpu, `C of layer ${l}`, dims.inner, { maxShardBytes }))
  );
  const progress: CollectProgress = { tokens: 0, documents: 0 };
  if (resume) {
    progress.tokens = resume.tokens;
    progress.documents = resume.documents;
    moments.forEach((moment, i) => moment.load({ count: resume.tokens, lower: resume.sums[i] }));
  }
  const watch = new Watch(moments, resume && watchedOf(resume));
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
    looks: watch.state.looks.map((looks) => [...looks]),
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
    await watch.look(gpu, progress.tokens);
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
      if ((watch.cosine ?? 0) >= converged) break;
    }
  }
  await flush();
  const sums = await sumsNow();
  return layers.map((layer, i): LayerStatistics => {
    const looks = watch.state.looks[i];
    const last = looks.at(-1);
    const lower = new Float32Array(sums[i].length);
    for (let j = 0; j < lower.length; j++) lower[j] = sums[i][j] / progress.tokens;
    return {
      origin: {
        modelHash,
        layer,
        width: dims.inner,
        corpusHash: corpus.hash,
        corpusName: corpus.name,
        ...progress,
        maxLength,
        complete: true,
        settings: { tokens: options.tokens, converged },
        ...last && { convergence: cosineOf(last.median), looks },
      },
      lower,
    };
  });
}

/** The part of a state that the watch goes on from; its own copy, since the watch adds to it. */
function watchedOf({ next, looks, keys, last }: CollectState) {
  return { next, looks: looks.map((l) => [...l]), keys, last };
}

/** Ends the recording of a forward pass at the last wanted key: nobody reads what its layer makes of it. */
const RECORDED = Symbol("all keys are recorded");

/** One forward over whole documents, up to the last wanted keys; they go into the sums on the device. */
async function addBatch(
  model: LoadedModel,
  documents: readonly number[][],
  layers: readonly number[],
  moments: readonly SecondMoment[],
  watch: Watch,
): Promise<void> {
  const { gpu, dims } = model;
  using rows = packRows(gpu, documents.map((ids) => ({ ids })), { windows: dims.windows });
  const probes = watch.wanted
    ? layers.map((layer) => createTensor(gpu, `probe keys of layer ${layer}`, [rows.count, dims.inner]))
    : undefined;
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const hooks = new Map<Site, Hook>();
  const highest = Math.max(...layers);
  layers.forEach((layer, i) =>
    hooks.set(`layer.${layer}.mlp.key`, (ctx, keys) => {
      moments[i].add(ctx.r, keys);
      if (probes) capture(ctx, keys, undefined, probes[i]);
      if (layer === highest) throw RECORDED;
      return keys;
    })
  );
  try {
    forward(ctx, model, rows, { to: highest + 1, hooks });
  } catch (stop) {
    if (stop !== RECORDED) throw stop;
  }
  using plan = ctx.r.finish("collect statistics");
  plan.run();
  if (probes) {
    watch.take(await readTensors(gpu, ...probes) as Float32Array[]);
    probes.forEach((t) => freeTensor(gpu, t));
  } else await gpu.sync();
}
