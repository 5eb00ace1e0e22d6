/**
 * Keys and hidden states at the subject's last token, layer after layer while lower layers are being edited (MEMIT,
 * Meng et al. 2023, section 4.3; guide sections 1.5, 5.2 and 14.10). Only tokens up to the subject's last are
 * computed, texts that a context begins with once for all edits, and a layer's inputs are kept for the next one, so
 * between two layers only what lies between them runs again.
 */
import { forward, type Model } from "../engine/models/model.ts";
import { packRows, type Rows, type Sequence } from "../engine/models/rows.ts";
import type { Hook, Site } from "../engine/models/sites.ts";
import type { Ctx } from "../engine/ops/context.ts";
import { capture } from "../engine/ops/rows.ts";
import { createTensor, freeTensor, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";
import type { TokenisedPrompt } from "./requests.ts";

/** What a layer's update starts from, one row a request. */
export interface LayerState {
  /** Mean keys k [n, F] in f64: the mean of each group of contexts, then of the groups (guide section 1.3). */
  keys: Float64Array[];
  /** The vector at the site asked for after the bare prompt, [D] each. */
  values: Float32Array[];
}

/** Some requests together on the device. */
interface Chunk {
  requests: number;
  /** All prompts, the bare ones first, then context after context. */
  rows: Rows;
  /** The bare prompts alone, and the rows of `rows` that they are. */
  bare: Rows;
  bareRows: Tensor;
  /** Rows of the subjects' last tokens, in `rows` and in `bare`. */
  lookups: Tensor;
  bareLookups: Tensor;
  /** The stream entering layer `at`, [rows, D]; absent where memory does not allow to keep it. */
  stream?: Tensor;
  at: number;
}

/** How much a reader may take. */
export interface KeyReaderOptions {
  /** Contexts a group, the bare one first; their sum is the number of prompts a request. */
  groups: readonly number[];
  /** Device memory for one chunk's work, and for all kept streams, bytes. */
  workBytes: number;
}

/** Reads keys of requests in ascending layers. Dispose it to free what it keeps. */
export class KeyReader implements Disposable {
  #model: Model;
  #weights: number[];
  #chunks: Chunk[];

  /** @param prompts of each request: in every context, the bare one first */
  constructor(model: Model, prompts: readonly (readonly TokenisedPrompt[])[], options: KeyReaderOptions) {
    const { groups, workBytes } = options;
    const { dims } = model;
    this.#model = model;
    this.#weights = groups.flatMap((count) => Array<number>(count).fill(1 / count / groups.length));
    const all = prompts.flat().reduce((n, p) => n + p.subjectLast + 1, 0);
    const keep = 4 * all * dims.width <= workBytes;
    this.#chunks = chunksOf(model, prompts, workBytes).map((part) => makeChunk(model, part, keep));
  }

  /**
   * Keys of a layer and current values at a site of this or a higher layer, under the model as it is. Layers below
   * must not change between calls.
   */
  async read(layer: number, site: `layer.${number}.out` | `layer.${number}.mlp.out`): Promise<LayerState> {
    const state: LayerState = { keys: [], values: [] };
    for (const chunk of this.#chunks) {
      const { keys, values } = await this.#readChunk(chunk, layer, site);
      state.keys.push(...keys);
      state.values.push(...values);
    }
    return state;
  }

  async #readChunk(chunk: Chunk, layer: number, site: Site): Promise<LayerState> {
    const model = this.#model;
    const { gpu, dims } = model;
    const { requests, rows, bare, stream, at } = chunk;
    const contexts = this.#weights.length;
    using scratch = new DisposableStack();
    const zeros = (label: string, shape: number[]) =>
      scratch.adopt(createTensor(gpu, label, shape), (t) => freeTensor(gpu, t));
    const captured = zeros("keys", [requests * contexts, dims.inner]);
    const current = zeros("current values", [requests, dims.width]);
    const bareInput = zeros("bare prompts", [bare.count, dims.width]);

    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const reading =
      (index: Tensor, into: Tensor): Hook => (ctx, value) => (capture(ctx, value, index, into), value);
    const entering: Hook = (ctx, value) => {
      capture(ctx, value, chunk.bareRows, bareInput);
      if (stream && at < layer) capture(ctx, value, undefined, stream);
      return value;
    };
    const kept = stream && at > 0 ? { from: at, input: stream } : {};
    const hooks = new Map<Site, Hook>([
      [`layer.${layer}.in`, entering],
      [`layer.${layer}.mlp.key`, reading(chunk.lookups, captured)],
    ]);
    forward(ctx, model, rows, { ...kept, to: layer + 1, hooks });
    forward(ctx, model, bare, {
      from: layer,
      input: bareInput,
      to: Number(site.split(".")[1]) + 1,
      hooks: new Map([[site, reading(chunk.bareLookups, current)]]),
    });
    using plan = ctx.r.finish(`keys of layer ${layer}`);
    plan.run();
    const [k, v] = await readTensors(gpu, captured, current) as Float32Array[];
    chunk.at = stream ? layer : 0;
    return {
      keys: Array.from({ length: requests }, (_, e) => this.#meanKey(k, e, requests)),
      values: Array.from({ length: requests }, (_, e) => v.slice(e * dims.width, (e + 1) * dims.width)),
    };
  }

  #meanKey(captured: Float32Array, request: number, requests: number): Float64Array {
    const F = this.#model.dims.inner;
    const mean = new Float64Array(F);
    this.#weights.forEach((weight, context) => {
      const at = (context * requests + request) * F;
      for (let i = 0; i < F; i++) mean[i] += weight * captured[at + i];
    });
    return mean;
  }

  [Symbol.dispose](): void {
    const { gpu } = this.#model;
    for (const { rows, bare, bareRows, lookups, bareLookups, stream } of this.#chunks.splice(0)) {
      [rows, bare].forEach((r) => r[Symbol.dispose]());
      [bareRows, lookups, bareLookups, stream].forEach((t) => t && freeTensor(gpu, t));
    }
  }
}

/** As many requests a chunk as the budget and the largest binding hold. */
function chunksOf(
  { dims, gpu }: Model,
  prompts: readonly (readonly TokenisedPrompt[])[],
  workBytes: number,
): (readonly TokenisedPrompt[])[][] {
  const { width: D, inner: F } = dims;
  const largest = Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
  // A block's temporaries: the stream twice, a norm, q, k, v and their mix; gate, up and key.
  const most = Math.min(workBytes / (4 * (8 * D + 3 * F)), largest / (4 * Math.max(F, 3 * D)));
  const chunks: (readonly TokenisedPrompt[])[][] = [];
  let rows = 0;
  for (const one of prompts) {
    const mine = one.reduce((n, p) => n + p.subjectLast + 1, 0);
    rows += mine;
    if (rows <= most && chunks.length) chunks.at(-1)!.push(one);
    else {
      chunks.push([one]);
      rows = mine;
    }
  }
  return chunks;
}

function makeChunk(model: Model, prompts: readonly (readonly TokenisedPrompt[])[], keep: boolean): Chunk {
  const { gpu, dims: { windows, width } } = model;
  const contexts = prompts[0].length;
  const sequences: Sequence[] = [];
  let row = 0;
  for (let context = 0; context < contexts; context++) {
    const texts = prompts.map((one) => upToSubject(one[context]));
    // The first has the rows of what all of them begin with.
    const prefix = context > 0 && texts.length > 1 ? { slot: row, count: commonLength(texts) } : undefined;
    texts.forEach((ids, i) => {
      const shared = i > 0 && prefix && prefix.count > 0 ? prefix : undefined;
      sequences.push({ ids, ...(shared ? { from: shared.count, prefix: shared } : {}) });
      row += ids.length - (shared?.count ?? 0);
    });
  }
  const rows = packRows(gpu, sequences, { windows });
  const bares = prompts.map(([bare]) => ({ ids: upToSubject(bare) }));
  const bare = packRows(gpu, bares, { windows });
  const u32 = (label: string, values: number[]) =>
    fromHost(gpu, label, [values.length], Uint32Array.from(values));
  const last = (of: Rows, all: readonly Sequence[]) => all.map(({ ids }, i) => of.rowOf(i, ids.length - 1));
  return {
    requests: prompts.length,
    rows,
    bare,
    bareRows: u32("bare rows", Array.from({ length: bare.count }, (_, i) => i)),
    lookups: u32("lookups", last(rows, sequences)),
    bareLookups: u32("bare lookups", last(bare, bares)),
    stream: keep ? createTensor(gpu, "kept stream", [rows.count, width]) : undefined,
    at: 0,
  };
}

function upToSubject({ ids, subjectLast }: TokenisedPrompt): number[] {
  return ids.slice(0, subjectLast + 1);
}

/** Tokens that all begin with, leaving each at least one of its own. */
function commonLength(texts: readonly (readonly number[])[]): number {
  const most = Math.min(...texts.map((ids) => ids.length)) - 1;
  let count = 0;
  while (count < most && texts.every((ids) => ids[count] === texts[0][count])) count++;
  return count;
}
