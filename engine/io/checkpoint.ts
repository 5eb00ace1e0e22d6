/**
 * A model on disk, whatever its format: a Hugging Face folder with safetensors files, or a GGUF file.
 * Weights come under their transformers names and in transformers layout, in pieces, so that host memory
 * stays flat while they go to the device.
 */
import { InputError } from "./errors.ts";
import { openFolder } from "./checkpoint_hf.ts";
import { openGguf } from "./checkpoint_gguf.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { WeightInfo, WeightPiece } from "./weights.ts";

export { findNonFinite } from "./dtypes.ts";
export type { WeightInfo, WeightPiece } from "./weights.ts";

/** An open model. */
export interface Checkpoint {
  readonly kind: "hf" | "gguf";
  readonly path: string;
  /** The keys of config.json; for GGUF made from the metadata. `parseConfig` checks them. */
  readonly config: Record<string, unknown>;
  /** By transformers name. GPT-2 folders may lack the "transformer." prefix; GGUF ones have it. */
  readonly weights: Map<string, WeightInfo>;
  /** Some weights are stored in blocks of less than 16 bits and are served as F32. */
  readonly quantised: boolean;
  /**
   * Rows [row0, row0 + rows) of a [rows, …rest] weight, in its dtype; a row of a 1-D weight is one element.
   * @throws InputError when there is no such weight or row
   */
  rows(name: string, row0: number, rows: number): Promise<Uint8Array>;
  /** A whole weight in pieces of at most `maxBytes` (default 8 MiB; whole multiples of 4 except the last). */
  pieces(name: string, maxBytes?: number): AsyncGenerator<WeightPiece>;
  /** @throws InputError when the model has no tokenizer that emend reads */
  tokenizer(): Promise<Tokenizer>;
  /** SHA-256 over names, dtypes, shapes and stored bytes; remembered in the user's cache folder. */
  hash(options?: { cache?: boolean }): Promise<string>;
  /** Paths of what belongs beside an edited copy: config, tokenizer, chat template. Empty for GGUF. */
  files(): string[];
  close(): void;
}

/**
 * Opens a model and checks its whole structure; weights are read only when they are asked for.
 * @param path a folder with config.json and safetensors files, or a .gguf file
 * @throws InputError
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const info = await Deno.stat(path).catch(() => undefined);
  if (info === undefined) throw new InputError(`No such model: ${path}`);
  if (info.isDirectory) return await openFolder(path);
  if (path.endsWith(".gguf")) return await openGguf(path);
  throw new InputError(`${path} is not a model`, {
    hint: "Give a folder with config.json and *.safetensors, or a .gguf file",
  });
}
