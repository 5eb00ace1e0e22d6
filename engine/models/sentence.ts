/**
 * Sentence embeddings (Reimers and Gurevych 2019): the mean of a BERT's last hidden states over the tokens of a
 * text, of length 1. Folders in the layout of sentence-transformers are read, such as all-MiniLM-L6-v2.
 */
import { join } from "node:path";
import { z } from "npm:zod@4.6.7";
import type { Gpu } from "../gpu/device.ts";
import { openCheckpoint } from "../io/checkpoint.ts";
import { parseBertConfig } from "../io/config_bert.ts";
import { InputError } from "../io/errors.ts";
import { parseJsonObject } from "../io/json.ts";
import type { Tokenizer } from "../io/tokenizer.ts";
import type { Ctx } from "../ops/context.ts";
import { offsetsOf, segmentMean } from "../ops/segments.ts";
import { createTensor, freeTensor } from "../tensor/tensor.ts";
import { fromHost, readF32 } from "../tensor/transfer.ts";
import { type Bert, bert, bertLayout } from "./bert.ts";
import { loadEntries, type LoadOptions } from "./load.ts";
import { packRows } from "./rows.ts";

/** A sentence encoder on the device. Dispose it to free its memory. */
export interface SentenceEncoder extends Bert, Disposable {
  readonly tokenizer: Tokenizer;
  /** Length of an embedding. */
  readonly width: number;
  /** Tokens of a text that are read at most, [CLS] and [SEP] among them. */
  readonly maxTokens: number;
  /** SHA-256 of the weights. */
  hash(): Promise<string>;
}

/** Rows a batch at most, unless one text alone has more. */
const MAX_ROWS = 1024;

/**
 * Opens and loads a sentence encoder; several models may share a device.
 * @throws {InputError} for another kind of model, another pooling than the mean, and what loading refuses
 */
export async function loadSentenceEncoder(
  gpu: Gpu,
  path: string,
  options: LoadOptions = {},
): Promise<SentenceEncoder> {
  const checkpoint = await openCheckpoint(path);
  try {
    const config = parseBertConfig(checkpoint.config);
    const { max_seq_length } = await settings(path, "sentence_bert_config.json", {
      max_seq_length: z.number().int().min(3).nullish(),
    });
    const pooling = await settings(path, join("1_Pooling", "config.json"), {
      pooling_mode_mean_tokens: z.boolean().default(true),
    });
    if (!pooling.pooling_mode_mean_tokens) {
      throw new InputError(`${path} does not pool by the mean over tokens, which is all that emend does`);
    }
    const tokenizer = await checkpoint.tokenizer();
    const { tensors, weights, dispose } = await loadEntries(gpu, checkpoint, bertLayout(config), {
      owner: "encoder",
      ...options,
    });
    gpu.check();
    return {
      gpu,
      name: path,
      config,
      tokenizer,
      tensors,
      weights,
      width: config.width,
      maxTokens: Math.min(max_seq_length ?? config.maxPositions, config.maxPositions),
      hash: () => checkpoint.hash(),
      [Symbol.dispose]() {
        dispose();
        checkpoint.close();
      },
    };
  } catch (error) {
    checkpoint.close();
    throw error;
  }
}

async function settings<T extends z.ZodRawShape>(folder: string, name: string, shape: T) {
  const path = join(folder, name);
  const text = await Deno.readTextFile(path).catch(() => "{}");
  const result = z.object(shape).safeParse(parseJsonObject(text, path));
  if (result.success) return result.data;
  throw new InputError(`Cannot read ${path}: bad ${result.error.issues[0].path.join(".")}`);
}

/** Token ids of a text as the encoder reads it: cut to its length, the last token ([SEP]) kept. */
export function sentenceIds({ tokenizer, maxTokens }: SentenceEncoder, text: string): number[] {
  const ids = tokenizer.encode(text);
  return ids.length <= maxTokens ? ids : [...ids.slice(0, maxTokens - 1), ids.at(-1)!];
}

/** Embeddings of texts, [texts, width] row-major, each of length 1. */
export async function embedSentences(
  encoder: SentenceEncoder,
  texts: readonly string[],
): Promise<Float32Array> {
  const { width } = encoder;
  const all = texts.map((text, at) => ({ at, ids: sentenceIds(encoder, text) }));
  // Texts of a length together: each batch is full, whatever their order.
  all.sort((a, b) => a.ids.length - b.ids.length);
  const out = new Float32Array(texts.length * width);
  for (let first = 0; first < all.length;) {
    let end = first, rows = 0;
    while (end < all.length && (end === first || rows + all[end].ids.length <= MAX_ROWS)) {
      rows += all[end++].ids.length;
    }
    const batch = all.slice(first, end);
    const means = await meanStates(encoder, batch.map(({ ids }) => ids));
    batch.forEach(({ at }, i) => out.set(unit(means.subarray(i * width, (i + 1) * width)), at * width));
    first = end;
  }
  return out;
}

/** Means of the last hidden states, [sequences, width]. */
async function meanStates(encoder: SentenceEncoder, ids: readonly number[][]): Promise<Float32Array> {
  const { gpu, width } = encoder;
  using rows = packRows(gpu, ids.map((one) => ({ ids: one })), { bidirectional: true });
  const tensors = [
    fromHost(gpu, "segments", [rows.count], new Uint32Array(rows.count)),
    fromHost(gpu, "texts", [ids.length + 1], offsetsOf(ids.map(({ length }) => length))),
    createTensor(gpu, "mean states", [ids.length, width]),
  ];
  const [segments, offsets, means] = tensors;
  try {
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    segmentMean(ctx, bert(ctx, encoder, rows, segments), offsets, means);
    using plan = ctx.r.finish("embed sentences");
    plan.run();
    return await readF32(gpu, means);
  } finally {
    tensors.forEach((t) => freeTensor(gpu, t));
  }
}

/** x/‖x‖ */
export function unit(x: Float32Array): Float32Array {
  const norm = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));
  return x.map((v) => v / Math.max(norm, 1e-12));
}
