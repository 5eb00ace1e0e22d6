/** Reference numbers from transformers for tiny checkpoints; see tools/fixtures/models.py. */
import { openFile } from "../../../engine/io/source.ts";
import { parseSafetensors } from "../../../engine/io/safetensors.ts";

const root = new URL("../../fixtures/models/", import.meta.url);

export interface Reference {
  folder: string;
  /** Tensors of reference.safetensors as f32. */
  tensors: Map<string, { shape: number[]; values: Float32Array }>;
  sequences: number[][];
  greedy: { prompt: number[]; new: number[] }[];
}

/** Reads one fixture folder. */
export async function readReference(name: string): Promise<Reference> {
  const folder = new URL(`${name}`, root).pathname;
  const json = JSON.parse(await Deno.readTextFile(`${folder}/reference.json`));
  const tensors: Reference["tensors"] = new Map();
  const sequences: number[][] = [];
  const file = await parseSafetensors(await openFile(`${folder}/reference.safetensors`));
  for (const entry of file.entries.values()) {
    const bytes = (await file.read(entry)).slice();
    const id = /^seq(\d+)\.ids$/.exec(entry.name);
    if (id) sequences[Number(id[1])] = [...new BigInt64Array(bytes.buffer)].map(Number);
    else tensors.set(entry.name, { shape: entry.shape, values: new Float32Array(bytes.buffer) });
  }
  file.source.close();
  return { folder, tensors, sequences, greedy: json.greedy };
}

/** ‖a − b‖ / ‖b‖ over two equally long vectors; NaN anywhere gives Infinity. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let diff = 0, norm = 0;
  for (let i = 0; i < b.length; i++) {
    diff += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  const error = Math.sqrt(diff) / Math.sqrt(norm || 1);
  return Number.isFinite(error) && a.length === b.length ? error : Infinity;
}
