/**
 * An unfinished collection of statistics as a file: all that a later run needs to end with the file that a
 * run without interruption writes. One file for all layers, so that they are always at the same document.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../engine/io/errors.ts";
import { type TensorOut, writeSafetensors } from "../engine/io/safetensors.ts";
import type { WatchState } from "./convergence.ts";
import { openNumbers } from "./numbers_file.ts";
import { lookSchema } from "./statistics.ts";

const FORMAT = "emend-statistics-partial";

const headerSchema = z.object({
  modelHash: z.string(),
  corpusHash: z.string(),
  maxLength: z.number(),
  layers: z.array(z.number()).min(1),
  tokens: z.number(),
  documents: z.number(),
  next: z.number(),
  looks: z.array(z.array(lookSchema)),
});

/** What an unfinished collection has seen so far. */
export interface CollectState extends WatchState {
  modelHash: string;
  corpusHash: string;
  maxLength: number;
  layers: number[];
  tokens: number;
  documents: number;
  /** Σ k kᵀ of each layer, lower triangle. */
  sums: Float64Array[];
}

/** Writes the state, whole or not at all. */
export async function writeCollectState(path: string, state: CollectState): Promise<void> {
  const { sums, keys = [], last = [], ...header } = state;
  const tensors = Object.entries({ sum: sums, keys, last }).flatMap(([name, layers]) =>
    layers.map((values, i): TensorOut => {
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      return { name: `${name}.${i}`, dtype: "F64", shape: [values.length], data: () => [bytes] };
    })
  );
  await writeSafetensors(path, tensors, { format: FORMAT, state: JSON.stringify(header) });
}

/** Reads a state. @throws {InputError} when the file is something else, or damaged */
export async function readCollectState(path: string): Promise<CollectState> {
  using file = await openNumbers(path, FORMAT, "an unfinished collection of statistics");
  const header = file.metadata("state", headerSchema);
  const ofLayers = async (name: string) => {
    const read = await Promise.all(header.layers.map((_, i) => file.read(`${name}.${i}`, Float64Array)));
    return read.every((values) => values !== undefined) ? read : undefined;
  };
  const sums = await ofLayers("sum");
  if (!sums) throw new InputError(`${path} lacks the sum of a layer`);
  const [keys, last] = [await ofLayers("keys"), await ofLayers("last")];
  return { ...header, sums, ...keys && { keys }, ...last && { last } };
}
