/**
 * A model folder that remembers its patches. Beside the edited weights lie a record for people and programs,
 * the patches as one stack, and the original bytes of what changed, so that any patch comes off again bit for
 * bit without the base (revert.ts). None of the extra files ends in .safetensors: some loaders read all that do.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { z } from "npm:zod@4.6.7";
import manifest from "../deno.json" with { type: "json" };
import { writeFileAtomic } from "../engine/io/atomic.ts";
import type { Checkpoint } from "../engine/io/checkpoint.ts";
import { InputError } from "../engine/io/errors.ts";
import { hashTensors } from "../engine/io/hash.ts";
import { parseJsonObject } from "../engine/io/json.ts";
import { readText } from "../engine/io/source.ts";
import { INDEX, openBaseFiles } from "./base_files.ts";
import { type TensorChange, writeCheckpoint } from "./checkpoint.ts";
import { baseHeaders, openOriginals, type Originals, writeOriginals } from "./originals.ts";
import { baseName, type Patch, readPatch, requireBase, writePatch } from "./patch.ts";
import { requireWeights } from "./prompt_patch.ts";
import { partsOf, stackPatches } from "./stack.ts";

/** The record. */
export const RECORD = "emend-patches.json";
/** The applied patches, one patch file. */
export const STACK = "emend-patches.stack";
/** The original bytes of the changed tensors. */
export const ORIGINALS = "emend-originals.data";

const FORMAT = "emend-applied";
const hex = z.string().regex(/^[0-9a-f]{64}$/, "it is not a SHA-256 in hex");
const fileSchema = z.object({ bytes: z.number().int().min(0), sha256: hex });

const recordSchema = z.object({
  format: z.literal(FORMAT),
  format_version: z.literal("1"),
  base: z.object({ hash: hex, name: z.string().min(1), kind: z.enum(["hf", "gguf"]) }),
  edited_hash: hex,
  patches: z.array(z.unknown()),
  weights_changed: z.array(z.unknown()),
  files: z.object({ [STACK]: fileSchema, [ORIGINALS]: fileSchema }),
  emend_version: z.string(),
});

/** What RECORD holds. */
export type AppliedRecord = z.infer<typeof recordSchema>;

/** A folder that remembers its patches, opened. Dispose to close it. */
export interface AppliedFolder extends Disposable {
  record: AppliedRecord;
  /** The stack of the applied patches. */
  patch: Patch;
  originals: Originals;
  /** The folder's tensors as they are. */
  edited: Checkpoint;
  /** The same with the originals in their place: the base. */
  base: Checkpoint;
}

/** Called as bytes are worked on. */
export type OnBytes = (bytes: number, total: number) => void;

/** Progress of {@link applyPatches} and of taking patches off. */
export interface ApplyProgress {
  /** Called as bytes are written. */
  onProgress?: OnBytes;
  /** Called as bytes are read for a hash. */
  onCheck?: OnBytes;
}

/** What {@link applyPatches} did. */
export interface Applied {
  /** All patches that the folder now has. */
  patch: Patch;
  changes: TensorChange[];
  record: AppliedRecord;
}

/**
 * Writes a model with patches applied, in the base's dtype, that remembers them. A folder that remembers
 * patches already gets more of the same base on top of them.
 * @param dir a new or empty folder, or an earlier model, which is replaced
 * @throws {InputError} as `requireBase`, `stackPatches` and `writeCheckpoint`
 */
export async function applyPatches(
  dir: string,
  checkpoint: Checkpoint,
  patches: readonly Patch[],
  options: ApplyProgress & { names?: readonly string[] } = {},
): Promise<Applied> {
  for (const patch of patches) requireWeights(patch, "a checkpoint");
  const { names, ...rest } = options;
  const record = await readRecord(checkpoint.path);
  if (record && patches.every(({ base }) => base.hash === record.base.hash)) {
    using folder = await openApplied(checkpoint.path, checkpoint, rest.onCheck);
    const { base } = folder.record;
    const stack = stackPatches([folder.patch, ...patches]);
    return await writeApplied(dir, folder.base, stack, { ...rest, base, headers: folder.originals.headers });
  }
  for (const [i, patch] of patches.entries()) await requireBase(patch, { checkpoint }, names?.[i]);
  const base = { hash: await checkpoint.hash(), name: baseName(checkpoint), kind: checkpoint.kind };
  const headers = await baseHeaders(checkpoint);
  return await writeApplied(dir, checkpoint, stackPatches(patches), { ...rest, base, headers });
}

/** Of {@link writeApplied}. */
interface WriteAppliedOptions extends ApplyProgress {
  /** Whether the folder may be the one that is read. */
  inPlace?: boolean;
  base: AppliedRecord["base"];
  headers: ReadonlyMap<string, Uint8Array>;
}

/** Writes an edited model with its record from a base, which may be one put together by {@link openApplied}. */
export async function writeApplied(
  dir: string,
  checkpoint: Checkpoint,
  patch: Patch,
  { base, headers, onCheck, ...options }: WriteAppliedOptions,
): Promise<Applied> {
  let record: AppliedRecord | undefined;
  const beside = async (folder: string, changes: TensorChange[]) => {
    const [stack, originals] = [join(folder, STACK), join(folder, ORIGINALS)];
    await writePatch(stack, patch);
    await writeOriginals(originals, checkpoint, changes.map(({ tensor }) => tensor), headers);
    record = {
      format: FORMAT,
      format_version: "1",
      base,
      edited_hash: await hashOf(folder, onCheck),
      patches: partsOf(patch).map(({ method, requests, version }, i) => (
        { number: i + 1, method, requests, emend_version: version }
      )),
      weights_changed: changes,
      files: { [STACK]: await describeFile(stack), [ORIGINALS]: await describeFile(originals) },
      emend_version: manifest.version,
    };
    await writeFileAtomic(join(folder, RECORD), JSON.stringify(record, null, 2) + "\n");
  };
  const changes = await writeCheckpoint(dir, checkpoint, patch.deltas, { ...options, beside });
  return { patch, changes, record: record! };
}

/**
 * Reads a folder's record, if it has one.
 * @throws {InputError} when it has one that is damaged
 */
export async function readRecord(folder: string): Promise<AppliedRecord | undefined> {
  const path = join(folder, RECORD);
  if (!await Deno.stat(path).then(() => true, () => false)) return undefined;
  const result = recordSchema.safeParse(parseJsonObject(await readText(path), path));
  if (result.success) return result.data;
  const { path: at, message } = result.error.issues[0];
  throw new InputError(`Cannot read ${path}: bad ${at.map(String).join(".") || "content"}: ${message}`);
}

/**
 * Opens a folder that {@link applyPatches} wrote, and puts its base together again.
 * @param edited the folder's checkpoint, which stays open
 * @throws {InputError} when there is no record, or a file is not as the record says
 */
export async function openApplied(
  path: string,
  edited: Checkpoint,
  onCheck?: OnBytes,
): Promise<AppliedFolder> {
  const record = await readRecord(path);
  if (record === undefined) {
    throw new InputError(`${path} has no record of applied patches`, {
      hint: "Give the base model with --base",
    });
  }
  for (const name of [STACK, ORIGINALS] as const) {
    const { bytes, sha256 } = record.files[name];
    const is = await describeFile(join(path, name));
    if (is.bytes !== bytes || is.sha256 !== sha256) {
      throw new InputError(`${join(path, name)} is not the file that ${RECORD} describes`, {
        hint: "Give the base model with --base",
      });
    }
  }
  if (await hashOf(path, onCheck) !== record.edited_hash) {
    throw new InputError(`The weights of ${path} were changed after its patches were applied`, {
      hint: "Give the base model with --base",
    });
  }
  const patch = await readPatch(join(path, STACK));
  const others = await otherFiles(path);
  const originals = await openOriginals(join(path, ORIGINALS), edited);
  const base: Checkpoint = {
    ...edited,
    rows: () => Promise.reject(new Error("A base that was put together is read in pieces")),
    pieces: (name) => originals.tensors.has(name) ? originals.pieces(name) : edited.pieces(name),
    hash: () => Promise.resolve(record.base.hash),
    files: () => others,
  };
  return { record, patch, originals, edited, base, [Symbol.dispose]: () => originals[Symbol.dispose]() };
}

/** Paths of a model folder's files that are neither its weights nor written by {@link applyPatches}. */
export async function otherFiles(folder: string): Promise<string[]> {
  using base = await openBaseFiles(folder);
  const own = new Set([RECORD, STACK, ORIGINALS, INDEX, ...base.files.map(({ name }) => name)]);
  const paths: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (!own.has(name) && (await Deno.stat(path)).isFile) paths.push(path);
  }
  return paths.sort();
}

/** The hash of a model folder as it lies there: `Checkpoint.hash`, uncached and with progress. */
export async function hashOf(folder: string, onProgress?: OnBytes): Promise<string> {
  using base = await openBaseFiles(folder);
  const total = base.files.reduce((sum, { file }) => sum + file.source.size, 0);
  let done = 0;
  const tensors = base.files.flatMap(({ file }) => {
    const read = async (offset: number, length: number) => {
      onProgress?.(done += length, total);
      return await file.source.read(offset, length);
    };
    const source = { ...file.source, read };
    return [...file.entries.values()].map((entry) => ({ ...entry, source }));
  });
  return await hashTensors(tensors);
}

/** A file's size and SHA-256. @throws {InputError} when it cannot be read */
async function describeFile(path: string): Promise<{ bytes: number; sha256: string }> {
  const sha = createHash("sha256");
  let bytes = 0;
  try {
    using file = await Deno.open(path);
    const piece = new Uint8Array(2 ** 20);
    for (let got = await file.read(piece); got !== null; got = await file.read(piece)) {
      sha.update(piece.subarray(0, got));
      bytes += got;
    }
  } catch (cause) {
    const why = cause instanceof Deno.errors.NotFound ? "it is not there" : (cause as Error).message;
    throw new InputError(`Cannot read ${path}: ${why}`, { hint: "Give the base model with --base", cause });
  }
  return { bytes, sha256: sha.digest("hex") };
}
