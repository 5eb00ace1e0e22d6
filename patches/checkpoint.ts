/**
 * The edited model as a folder that transformers loads: the base's tensors in the base's dtypes, streamed,
 * with the changed ones summed and rounded on the way. The folder appears whole or not at all.
 */
import { basename, dirname, join } from "node:path";
import { checkWritable, writeFolderAtomic } from "../engine/io/atomic.ts";
import type { Checkpoint, WeightPiece } from "../engine/io/checkpoint.ts";
import { DTYPE_BYTES } from "../engine/io/dtypes.ts";
import { InputError } from "../engine/io/errors.ts";
import { parseJsonObject } from "../engine/io/json.ts";
import { parseSafetensors, type TensorOut, writeSafetensors } from "../engine/io/safetensors.ts";
import { openFile, readText } from "../engine/io/source.ts";
import { piecesOf } from "../engine/io/weights.ts";
import { changedPieces, planChanges, type PlannedChange, type TensorChange } from "./changes.ts";
import { writeGgufCompanions } from "./gguf_companions.ts";
import type { TensorDelta } from "./patch.ts";

export { measureChanges, type TensorChange } from "./changes.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

export interface WriteCheckpointOptions {
  /** Called as tensors are written. */
  onProgress?: (bytes: number, total: number) => void;
}

/**
 * Writes the edited model. A Hugging Face base keeps its files, shards, dtypes and companions; a GGUF base
 * becomes one safetensors file in which quantised tensors are F32, with a config and a tokenizer.
 * @param dir a new or empty folder, or an earlier model, which is replaced
 * @param deltas of one patch, or of a stack of patches in order
 * @returns what changed, in the order of the checkpoint's tensors
 * @throws {InputError} a tensor that is missing or of another shape, a change out of the dtype's range, a
 *   folder that cannot be written or holds the base itself
 */
export async function writeCheckpoint(
  dir: string,
  checkpoint: Checkpoint,
  deltas: readonly TensorDelta[],
  { onProgress }: WriteCheckpointOptions = {},
): Promise<TensorChange[]> {
  await checkCheckpointFolder(dir, checkpoint);
  const planned = planChanges(checkpoint, deltas);
  const changes: TensorChange[] = [];
  const copy = (source: Source, total: number, progress: Progress): TensorOut => ({
    ...source,
    async *data() {
      const change = planned.get(source.name);
      const pieces = change === undefined ? bytesOf(source) : changed(source, change, changes);
      for await (const bytes of pieces) {
        yield bytes;
        onProgress?.(progress.done += bytes.length, total);
      }
    },
  });
  const progress: Progress = { done: 0 };
  await writeFolderAtomic(dir, async (folder) => {
    if (checkpoint.kind === "gguf") {
      const sources = servedTensors(checkpoint);
      const total = sources.reduce((sum, source) => sum + sizeOf(source), 0);
      const tensors = sources.map((source) => copy(source, total, progress));
      await writeSafetensors(join(folder, SINGLE), tensors, { format: "pt" });
      await writeGgufCompanions(folder, checkpoint);
      return;
    }
    using base = await openBase(checkpoint.path);
    const total = base.files.flatMap(({ sources }) => sources).reduce((sum, s) => sum + sizeOf(s), 0);
    for (const { name, metadata, sources } of base.files) {
      const tensors = sources.map((source) => copy(source, total, progress));
      await writeSafetensors(join(folder, name), tensors, { format: "pt", ...metadata });
    }
    for (const path of [...base.index, ...checkpoint.files()]) {
      await Deno.copyFile(path, join(folder, basename(path)));
    }
  });
  return changes;
}

/**
 * Makes sure that an edited model can go to `dir`, before the work that leads to it starts.
 * @throws {InputError} when the base is in it, it holds something other than a model, or it cannot be written
 */
export async function checkCheckpointFolder(dir: string, checkpoint: Checkpoint): Promise<void> {
  const base = checkpoint.kind === "hf" ? checkpoint.path : dirname(checkpoint.path);
  const real = (path: string) => Deno.realPath(path).catch(() => undefined);
  const target = await real(dir);
  if (target !== undefined && target === await real(base)) {
    throw new InputError(`Cannot write the edited model to ${dir}: its base model is there`, {
      hint: "Name another folder",
    });
  }
  await checkWritable(dir, "folder");
}

/** Bytes written so far. */
interface Progress {
  done: number;
}

/** A tensor of the base as it will be written. */
interface Source extends Omit<TensorOut, "data"> {
  pieces(): AsyncIterable<WeightPiece>;
}

/** A safetensors file of the base. */
interface BaseFile {
  name: string;
  metadata: Record<string, string>;
  sources: Source[];
}

function sizeOf({ dtype, shape }: Source): number {
  return shape.reduce((bytes, size) => bytes * size, DTYPE_BYTES[dtype]);
}

function servedTensors(checkpoint: Checkpoint): Source[] {
  return [...checkpoint.weights.values()].map((info) => ({
    ...info,
    pieces: () => checkpoint.pieces(info.name),
  }));
}

/** The safetensors files of a folder with all their tensors, buffers that are no weights included. */
async function openBase(folder: string): Promise<Disposable & { files: BaseFile[]; index: string[] }> {
  const single = await Deno.stat(join(folder, SINGLE)).then(() => true, () => false);
  const index = join(folder, INDEX);
  const names = single ? [SINGLE] : await shardNames(index);
  const stack = new DisposableStack();
  try {
    const files: BaseFile[] = [];
    for (const name of names) {
      const source = await openFile(join(folder, name));
      stack.defer(() => source.close());
      const file = await parseSafetensors(source);
      const sources = [...file.entries.values()].map((entry) => ({
        name: entry.name,
        dtype: entry.dtype,
        shape: entry.shape,
        async *pieces() {
          for (const { byteOffset, length } of piecesOf(entry.bytes)) {
            yield { byteOffset, bytes: await file.read(entry, byteOffset, length) };
          }
        },
      }));
      files.push({ name, metadata: file.metadata, sources });
    }
    return { files, index: single ? [] : [index], [Symbol.dispose]: () => stack.dispose() };
  } catch (error) {
    stack.dispose();
    throw error;
  }
}

async function shardNames(index: string): Promise<string[]> {
  const { weight_map: map } = parseJsonObject(await readText(index), index);
  return [...new Set(Object.values(map as Record<string, string>))].sort();
}

async function* bytesOf(source: Source): AsyncGenerator<Uint8Array> {
  for await (const { bytes } of source.pieces()) yield bytes;
}

async function* changed(
  source: Source,
  change: PlannedChange,
  into: TensorChange[],
): AsyncGenerator<Uint8Array> {
  into.push(yield* changedPieces(source.pieces(), change));
}
