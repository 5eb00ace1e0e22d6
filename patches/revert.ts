/**
 * Taking patches off a written model again. From what `patch apply` kept, or from the base: taking all off
 * gives the original files' bytes, taking some off gives the folder that never had them, byte for byte.
 */
import { basename, join } from "node:path";
import { writeFolderAtomic, writeStreamAtomic } from "../engine/io/atomic.ts";
import { type Checkpoint, openCheckpoint } from "../engine/io/checkpoint.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { parseSafetensors } from "../engine/io/safetensors.ts";
import { type ByteSource, fromBytes, openFile } from "../engine/io/source.ts";
import { piecesOf, type WeightPiece } from "../engine/io/weights.ts";
import {
  type AppliedFolder,
  type ApplyProgress,
  hashOf,
  openApplied,
  otherFiles,
  readRecord,
  STACK,
  writeApplied,
} from "./applied.ts";
import { entryPieces, openBaseFiles } from "./base_files.ts";
import { checkCheckpointFolder, sameFolder, type TensorChange } from "./checkpoint.ts";
import { baseHeaders } from "./originals.ts";
import { baseName, type Patch, readPatch } from "./patch.ts";
import { partsOf, withoutParts } from "./stack.ts";

export interface RevertOptions extends ApplyProgress {
  /** Which patches come off; given all of the folder's, returns their numbers, from 1. Default: all. */
  select?: (patch: Patch) => number[];
  /** The base, where the folder has not kept what it needs. It is only read. */
  base?: Checkpoint;
}

/** What {@link revertPatches} did. */
export interface Reverted {
  /** What the reverted model is, or was edited from. */
  base: { hash: string; name: string };
  /** How many patches came off; undefined when the folder had no record of them. */
  removed?: number;
  /** The patches that are still on it. */
  left: Patch[];
  changes: TensorChange[];
}

/**
 * Writes the model of `folder` without patches.
 * @param out a folder (it may be `folder` itself), or for all of a GGUF base's patches a file
 * @throws {InputError} when what is needed was not kept and no base is given, when the base is another one, or
 *   when the folder's weights were changed since
 */
export async function revertPatches(
  folder: string,
  out: string,
  options: RevertOptions = {},
): Promise<Reverted> {
  const { select, base, onProgress, onCheck } = options;
  const edited = await openCheckpoint(folder);
  try {
    const record = await readRecord(folder);
    if (base) await checkBase(base, edited, record?.base.hash);
    if (select && record === undefined) {
      throw new InputError(`${folder} has no record of applied patches, so none can come off alone`);
    }
    using applied = base ? undefined : await openApplied(folder, edited, onCheck);
    const patch = applied?.patch ?? (record && select && await readPatch(join(folder, STACK)));
    const total = patch ? partsOf(patch).length : record?.patches.length;
    const numbers = patch && select ? new Set(select(patch)) : undefined;
    const inPlace = await sameFolder(folder, out);
    if (base?.kind === "hf" && !inPlace) await checkCheckpointFolder(out, base);
    if (record && patch && numbers && numbers.size < total!) {
      const rest = withoutParts(patch, [...numbers]);
      const headers = applied?.originals.headers ?? await baseHeaders(base!);
      const { changes } = await writeApplied(out, applied?.base ?? base!, rest, {
        base: record.base,
        headers,
        onProgress,
        onCheck,
        inPlace,
      });
      return { base: record.base, removed: numbers.size, left: partsOf(rest), changes };
    }
    if (base) {
      await copyBase(base, folder, out, onProgress);
      const own = { hash: await base.hash(), name: baseName(base) };
      return { base: record?.base ?? own, removed: total, left: [], changes: [] };
    }
    const { name, kind } = applied!.record.base;
    if (kind === "gguf") {
      throw new InputError(`${folder} was made from the GGUF file ${name} and has not kept its bytes`, {
        hint: "Give that file with --base",
      });
    }
    await restore(applied!, out, options);
    return { base: applied!.record.base, removed: total, left: [], changes: [] };
  } finally {
    edited.close();
  }
}

/** Refuses a base that is not the folder's: another hash than recorded, or other tensors. */
async function checkBase(base: Checkpoint, edited: Checkpoint, recorded?: string): Promise<void> {
  const hash = recorded === undefined ? undefined : await base.hash();
  if (hash !== recorded) {
    throw new InputError(
      `${edited.path} was made from model ${recorded!.slice(0, 8)}…; ${base.path} is ${hash!.slice(0, 8)}…`,
    );
  }
  for (const { name, shape } of base.weights.values()) {
    const own = edited.weights.get(name);
    if (own?.shape.join() === shape.join()) continue;
    const is = own ? `is [${own.shape.join(", ")}]` : "is missing";
    throw new InputError(
      `${edited.path} is no edit of ${base.path}: its ${show(name)} ${is}, not [${shape.join(", ")}]`,
    );
  }
}

/** The base's files under their own bytes, with what else lies in the folder. */
async function copyBase(
  base: Checkpoint,
  folder: string,
  out: string,
  onProgress: RevertOptions["onProgress"],
): Promise<void> {
  if (base.kind === "gguf") {
    using source = await opened(base.path);
    await writeStreamAtomic(out, async (write) => {
      for (const { byteOffset, length } of piecesOf(source.size)) {
        await write(await source.read(byteOffset, length));
        onProgress?.(byteOffset + length, source.size);
      }
    });
    return;
  }
  using files = await openBaseFiles(base.path);
  const own = [...files.index, ...base.files()];
  const names = new Set(own.map((path) => basename(path)));
  const others = (await otherFiles(folder)).filter((path) => !names.has(basename(path)));
  const total = files.files.reduce((sum, { file }) => sum + file.source.size, 0);
  let done = 0;
  await writeFolderAtomic(out, async (target) => {
    for (const { name, file } of files.files) {
      await Deno.copyFile(join(base.path, name), join(target, name));
      onProgress?.(done += file.source.size, total);
    }
    for (const path of [...own, ...others]) await Deno.copyFile(path, join(target, basename(path)));
  });
}

/** The base's files from what the folder has and kept; refused unless they are the base, by its hash. */
async function restore(
  { record, originals, edited, base }: AppliedFolder,
  out: string,
  { onProgress, onCheck }: ApplyProgress,
): Promise<void> {
  using files = await openBaseFiles(edited.path);
  const total = files.files.reduce((sum, { file }) => sum + file.source.size, 0);
  let done = 0;
  await writeFolderAtomic(out, async (target) => {
    for (const { name, file } of files.files) {
      const header = originals.headers.get(name);
      if (header === undefined) throw new InputError(`${edited.path} has not kept the header of ${name}`);
      const entries = [...file.entries.values()];
      const size = header.length + entries.reduce((sum, { bytes }) => sum + bytes, 0);
      const { entries: wanted } = await parseSafetensors({ ...fromBytes(name, header), size } as ByteSource);
      await writeStreamAtomic(join(target, name), async (write) => {
        await write(header);
        for (const { name: tensor, bytes } of wanted.values()) {
          const entry = file.entries.get(tensor);
          if (entry?.bytes !== bytes) {
            throw new InputError(`${name} has no ${show(tensor)} of ${bytes} bytes`);
          }
          const pieces: AsyncIterable<WeightPiece> = base.weights.has(tensor)
            ? base.pieces(tensor)
            : entryPieces(file, entry);
          for await (const piece of pieces) {
            await write(piece.bytes);
            onProgress?.(done += piece.bytes.length, total);
          }
        }
      });
    }
    for (const path of [...files.index, ...base.files()]) {
      await Deno.copyFile(path, join(target, basename(path)));
    }
    if (await hashOf(target, onCheck) !== record.base.hash) {
      throw new InputError(`What ${edited.path} kept does not give its base back`, {
        hint: "Give the base model with --base",
      });
    }
  });
}

async function opened(path: string): Promise<ByteSource & Disposable> {
  const source = await openFile(path);
  return { ...source, [Symbol.dispose]: () => source.close() };
}
