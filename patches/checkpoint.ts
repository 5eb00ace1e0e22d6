/**
 * The edited model as a folder that transformers loads: the base's tensors in the base's dtypes, streamed,
 * with the changed ones summed and rounded on the way. The folder appears whole or not at all.
 */
import { basename, dirname, join } from "node:path";
import { checkWritable, writeFolderAtomic } from "../engine/io/atomic.ts";
import type { Checkpoint, WeightPiece } from "../engine/io/checkpoint.ts";
import { InputError } from "../engine/io/errors.ts";
import { type TensorOut, writeSafetensors } from "../engine/io/safetensors.ts";
import { byteSize, entryPieces, openBaseFiles, SINGLE } from "./base_files.ts";
import { changedPieces, planChanges, type PlannedChange, type TensorChange } from "./changes.ts";
import { writeGgufCompanions } from "./gguf_companions.ts";
import type { TensorDelta } from "./patch.ts";

export { measureChanges, type TensorChange } from "./changes.ts";

export interface WriteCheckpointOptions {
  /** Called as tensors are written. */
  onProgress?: (bytes: number, total: number) => void;
  /** Writes more files into the folder before it appears. */
  beside?: (folder: string, changes: TensorChange[]) => Promise<void>;
  /** Whether `dir` may be the base's own folder, which is then replaced. */
  inPlace?: boolean;
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
  { onProgress, beside, inPlace = false }: WriteCheckpointOptions = {},
): Promise<TensorChange[]> {
  if (!inPlace) await checkCheckpointFolder(dir, checkpoint);
  const planned = planChanges(checkpoint, deltas);
  const changes: TensorChange[] = [];
  let done = 0;
  const copy = (source: Source, total: number): TensorOut => ({
    ...source,
    async *data() {
      const change = planned.get(source.name);
      const pieces = change === undefined ? bytesOf(source) : changed(source, change, changes);
      for await (const bytes of pieces) {
        yield bytes;
        onProgress?.(done += bytes.length, total);
      }
    },
  });
  await writeFolderAtomic(dir, async (folder) => {
    if (checkpoint.kind === "gguf") {
      const sources = servedTensors(checkpoint);
      const total = sources.reduce((sum, source) => sum + byteSize(source), 0);
      await writeSafetensors(join(folder, SINGLE), sources.map((s) => copy(s, total)), { format: "pt" });
      await writeGgufCompanions(folder, checkpoint);
    } else {
      using base = await openBaseFiles(checkpoint.path);
      const entries = base.files.flatMap(({ file }) => [...file.entries.values()]);
      const total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
      for (const { name, file } of base.files) {
        const tensors = [...file.entries.values()].map((entry) =>
          copy({
            name: entry.name,
            dtype: entry.dtype,
            shape: entry.shape,
            pieces: () =>
              checkpoint.weights.has(entry.name) ? checkpoint.pieces(entry.name) : entryPieces(file, entry),
          }, total)
        );
        await writeSafetensors(join(folder, name), tensors, { format: "pt", ...file.metadata });
      }
      for (const path of [...base.index, ...checkpoint.files()]) {
        await Deno.copyFile(path, join(folder, basename(path)));
      }
    }
    await beside?.(folder, changes);
  });
  return changes;
}

/**
 * Makes sure that an edited model can go to `dir`, before the work that leads to it starts.
 * @throws {InputError} when the base is in it, it holds something other than a model, or it cannot be written
 */
export async function checkCheckpointFolder(dir: string, checkpoint: Checkpoint): Promise<void> {
  const base = checkpoint.kind === "hf" ? checkpoint.path : dirname(checkpoint.path);
  if (await sameFolder(dir, base)) {
    throw new InputError(`Cannot write the edited model to ${dir}: its base model is there`, {
      hint: "Name another folder",
    });
  }
  await checkWritable(dir, "folder");
}

/** Whether two paths are one existing folder. */
export async function sameFolder(a: string, b: string): Promise<boolean> {
  const real = (path: string) => Deno.realPath(path).catch(() => undefined);
  const target = await real(a);
  return target !== undefined && target === await real(b);
}

/** A tensor of the base as it will be written. */
interface Source extends Omit<TensorOut, "data"> {
  pieces(): AsyncIterable<WeightPiece>;
}

function servedTensors(checkpoint: Checkpoint): Source[] {
  return [...checkpoint.weights.values()].map((info) => ({
    ...info,
    pieces: () => checkpoint.pieces(info.name),
  }));
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
