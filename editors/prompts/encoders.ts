/**
 * What finds the fact that a prompt is about: embeddings of texts, by a sentence encoder (MiniLM) or, where there
 * is none, from the base model's own lower layers (guide section 15). Encoders of a device are shared by all who
 * ask for them, and stay until the device is closed.
 */
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu/device.ts";
import { cacheFolder } from "../../engine/io/cache.ts";
import { InputError } from "../../engine/io/errors.ts";
import { forward, type Model } from "../../engine/models/model.ts";
import { packRows } from "../../engine/models/rows.ts";
import { unrouted } from "../../engine/models/route.ts";
import { embedSentences, loadSentenceEncoder, type SentenceEncoder } from "../../engine/models/sentence.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { offsetsOf, segmentMean } from "../../engine/ops/segments.ts";
import { createTensor, freeTensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { EncoderName } from "./encoder_name.ts";
import { following } from "./text.ts";

/** Texts to numbers. */
export interface Encoder {
  readonly name: EncoderName;
  readonly width: number;
  /** [texts, width] row-major. Sentence encoders give length 1; states are as they are. */
  embed(texts: readonly string[]): Promise<Float32Array>;
}

/** Where `tools/minilm.ts` puts the sentence encoder. */
export function minilmFolder(): string {
  return join(cacheFolder(), "models", "all-MiniLM-L6-v2");
}

const LOADED = new WeakMap<Gpu, Map<string, Promise<SentenceEncoder>>>();

/** The sentence encoder in a folder. @throws {InputError} when it cannot be read */
export async function sentenceEncoder(gpu: Gpu, folder: string): Promise<Encoder> {
  const known = LOADED.get(gpu) ?? new Map<string, Promise<SentenceEncoder>>();
  LOADED.set(gpu, known);
  let loading = known.get(folder);
  if (!loading) known.set(folder, loading = loadSentenceEncoder(gpu, folder));
  const model = await loading.catch((error) => {
    known.delete(folder);
    throw error;
  });
  const name = folder.replaceAll("\\", "/").replace(/\/+$/, "").split("/").at(-1)!;
  return {
    name: { kind: "sentence", name, hash: await model.hash() },
    width: model.width,
    embed: (texts) => embedSentences(model, texts),
  };
}

/** The sentence encoder of a memory: one that is on the device, wherever it came from, or the one in the cache. */
async function sentenceEncoderOf(
  model: Model,
  { name, hash }: EncoderName & { kind: "sentence" },
): Promise<Encoder> {
  for (const folder of LOADED.get(model.gpu)?.keys() ?? []) {
    const encoder = await sentenceEncoder(model.gpu, folder).catch(() => undefined);
    if (encoder?.name.kind === "sentence" && encoder.name.hash === hash) return encoder;
  }
  const encoder = await encoderNamed(model, join(cacheFolder(), "models", name));
  const here = encoder.name.kind === "sentence" ? encoder.name.hash : "";
  if (here === hash) return encoder;
  const short = (text: string) => `${text.slice(0, 8)}…`;
  throw new InputError(
    `The memory was made with encoder ${short(hash)} (${name}); the one here is ${short(here)}`,
  );
}

/** Rows a batch at most, unless one text alone has more. */
const MAX_ROWS = 1024;

/**
 * Means over tokens of the states that enter some layers (0: the embeddings), side by side: no second model and
 * no second tokenizer. States of the last layers would tell next tokens, not what a text is about.
 */
export function stateEncoder(edited: Model, layers: readonly number[]): Encoder {
  const model = unrouted(edited);
  const { gpu, tokenizer, dims } = model;
  const width = layers.length * dims.width;
  const embedBatch = async (batch: readonly (readonly number[])[]) => {
    using rows = packRows(gpu, batch.map((ids) => ({ ids })), { windows: dims.windows });
    const offsets = fromHost(gpu, "texts", [batch.length + 1], offsetsOf(batch.map(({ length }) => length)));
    const means = layers.map(() => createTensor(gpu, "mean states", [batch.length, dims.width]));
    try {
      const ctx: Ctx = { gpu, r: gpu.recorder() };
      const hooks = new Map<Site, Hook>();
      // The state that enters a layer is also the one behind the layer before it: all stops at the highest.
      const to = Math.max(...layers);
      layers.forEach((layer, i) => {
        const site: Site = layer === 0 ? "embed" : `layer.${layer - 1}.out`;
        hooks.set(site, (ctx, h) => (segmentMean(ctx, h, offsets, means[i]), h));
      });
      forward(ctx, model, rows, { to, hooks });
      using plan = ctx.r.finish("mean states");
      plan.run();
      return await readTensors(gpu, ...means) as Float32Array[];
    } finally {
      [offsets, ...means].forEach((t) => freeTensor(gpu, t));
    }
  };
  return {
    name: { kind: "states", layers: [...layers] },
    width,
    async embed(texts) {
      // A name at the beginning of a text must be the tokens that it is in its middle.
      const all = texts.map((text) => following(tokenizer, tokenizer.encode(text)));
      const out = new Float32Array(texts.length * width);
      for (let first = 0; first < all.length;) {
        let end = first, rows = 0;
        while (end < all.length && (end === first || rows + all[end].length <= MAX_ROWS)) {
          rows += all[end++].length;
        }
        (await embedBatch(all.slice(first, end))).forEach((means, i) => {
          for (let text = first; text < end; text++) {
            const row = means.subarray((text - first) * dims.width, (text - first + 1) * dims.width);
            out.set(row, text * width + i * dims.width);
          }
        });
        first = end;
      }
      return out;
    },
  };
}

/**
 * The encoder by the name that hyper-parameters give: `minilm`, `states`, `auto` (MiniLM where it is in the
 * cache, else states), or a folder.
 * @throws {InputError} when it is not there
 */
export async function encoderNamed(model: Model, name: string): Promise<Encoder> {
  const has = async (folder: string) => await Deno.stat(folder).then(() => true, () => false);
  const minilm = minilmFolder();
  if (name === "states" || (name === "auto" && !await has(minilm))) {
    return stateEncoder(model, middleLayers(model));
  }
  const folder = name === "minilm" || name === "auto" ? minilm : name;
  if (await has(folder)) return await sentenceEncoder(model.gpu, folder);
  throw new InputError(`There is no sentence encoder at ${folder}`, {
    hint: "deno run -A tools/minilm.ts fetches one; --set encoder=states does without",
  });
}

/** The encoder that made a file's embeddings. @throws {InputError} when this one's weights are others */
export async function encoderOf(model: Model, name: EncoderName): Promise<Encoder> {
  if (name.kind === "states") {
    const beyond = name.layers.find((layer) => layer >= model.dims.layers);
    if (beyond === undefined) return stateEncoder(model, name.layers);
    throw new InputError(`The memory was made from layer ${beyond}, which ${model.name} does not have`);
  }
  return await sentenceEncoderOf(model, name);
}

/** A layer between a third and half of the depth. */
function middleLayers({ dims }: Model): number[] {
  return [Math.max(1, Math.round(0.4 * dims.layers))];
}

/** Rows minus the mean of all of them, of length 1: without it all cosines of states are near 1. */
export function centred(values: Float32Array, width: number, mean: ArrayLike<number>): Float32Array {
  const out = new Float32Array(values.length);
  for (let at = 0; at < values.length; at += width) {
    let norm = 0;
    for (let i = 0; i < width; i++) norm += (out[at + i] = values[at + i] - mean[i]) ** 2;
    const scale = 1 / Math.max(Math.sqrt(norm), 1e-12);
    for (let i = 0; i < width; i++) out[at + i] *= scale;
  }
  return out;
}

/** The mean row. */
export function meanRow(values: Float32Array, width: number): Float32Array {
  const mean = new Float64Array(width);
  for (let i = 0; i < values.length; i++) mean[i % width] += values[i];
  return Float32Array.from(mean, (x) => x * width / Math.max(1, values.length));
}
