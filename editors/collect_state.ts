/**
 * An unfinished collection of statistics as a file: all that a later run needs to end with the file that a
 * run without interruption writes. One file for all layers, so that they are always at the same document.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../engine/io/errors.ts";
import { type TensorOut, writeSafetensors } from "../engine/io/safetensors.ts";
import { openNumbers } from "./statistics.ts";

const FORMAT = "emend-statistics-partial";

const headerSchema = z.object({
  modelHash: z.string(),
  corpusHash: z.string(),
  maxLength: z.number(),
  layers: z.array(z.number()).min(1),
  tokens: z.number(),
  documents: z.number(),
  convergence: z.number().optional(),
  /** Tokens at which the convergence is next looked at. */
  next: z.number(),
});

/** What an unfinished collection has seen so far. */
export interface CollectState extends z.infer<typeof headerSchema> {
  /** Σ k kᵀ of each layer, lower triangle. */
  sums: Float64Array[];
  /** Keys whose C⁻¹k is watched, once chosen. */
  keys?: Float64Array;
  /** Their C⁻¹k at the last look. */
  last?: Float64Array;
}

/** Writes the state, whole or not at all. */
export async function writeCollectState(path: string, state: CollectState): Promise<void> {
  const { sums, keys, last, ...header } = state;
  const named: [string, Float64Array | undefined][] = [
    ...sums.map((sum, i): [string, Float64Array] => [`sum.${i}`, sum]),
    ["keys", keys],
    ["last", last],
  ];
  const tensors = named.flatMap(([name, values]): TensorOut[] => {
    if (values === undefined) return [];
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return [{ name, dtype: "F64", shape: [values.length], data: () => [bytes] }];
  });
  await writeSafetensors(path, tensors, { format: FORMAT, state: JSON.stringify(header) });
}

/** Reads a state. @throws {InputError} when the file is something else, or damaged */
export async function readCollectState(path: string): Promise<CollectState> {
  using file = await openNumbers(path, FORMAT, "an unfinished collection of statistics");
  const header = file.metadata("state", headerSchema);
  const sums = await Promise.all(header.layers.map((_, i) => file.read(`sum.${i}`, Float64Array)));
  const [keys, last] = [await file.read("keys", Float64Array), await file.read("last", Float64Array)];
  if (sums.some((sum) => sum === undefined)) throw new InputError(`${path} lacks the sum of a layer`);
  return { ...header, sums: sums as Float64Array[], keys, last };
}
