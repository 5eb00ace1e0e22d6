/**
 * A trained editor as one safetensors file: all its numbers, normaliser statistics included (without them it would
 * silently do something else), what shape it has, and which model, tokenizer and maps it is for.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { z } from "npm:zod@4.6.7";
import { fromFloat32 } from "../../engine/io/convert.ts";
import { InputError } from "../../engine/io/errors.ts";
import { parseSafetensors, type TensorOut, writeSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import type { Tokenizer } from "../../engine/io/tokenizer.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import type { Numbers } from "./network.ts";

/** What an editor belongs to. */
export interface EditorBase {
  /** `Checkpoint.hash()` of the model. */
  hash: string;
  /** SHA-256 of its tokenizer.json. */
  tokenizer: string;
  /** Name of its folder or file, without path. */
  name: string;
}

const headSchema = z.object({
  method: z.string(),
  base: z.object({ hash: z.string(), tokenizer: z.string(), name: z.string() }),
  /** The maps that it edits. */
  roles: z.array(z.string()).min(1),
  /** What its network is made by. */
  shape: z.record(z.string(), z.unknown()),
  /** How it was trained: data, steps, seed, validation. */
  training: z.record(z.string(), z.unknown()),
});

/** All but the numbers. */
export type EditorHead = z.infer<typeof headSchema>;

/** A tensor of an editor or of its training. */
export interface NamedNumbers {
  shape: readonly number[];
  values: Float32Array | Uint32Array;
}

const FORMAT = "emend-editor";

/** Which model and tokenizer these are. */
export async function editorBase(model: LoadedModel): Promise<EditorBase> {
  const { checkpoint, tokenizer } = model;
  return {
    hash: await checkpoint.hash(),
    tokenizer: tokenizerHash(tokenizer),
    name: checkpoint.path.replace(/\/+$/, "").split("/").at(-1)!,
  };
}

function tokenizerHash(tokenizer: Tokenizer): string {
  return createHash("sha256").update(JSON.stringify(tokenizer.toJSON())).digest("hex");
}

/** Writes an editor, or with `what` the state of a training, whole or not at all; equal input gives equal bytes. */
export async function writeEditor(
  path: string,
  head: EditorHead,
  numbers: ReadonlyMap<string, NamedNumbers>,
  what: "editor" | "training" = "editor",
): Promise<void> {
  const tensors = [...numbers].sort(([a], [b]) => a < b ? -1 : 1).map((
    [name, { shape, values }],
  ): TensorOut => ({
    name,
    dtype: values instanceof Uint32Array ? "U32" : "F32",
    shape: [...shape],
    data: () => [
      values instanceof Uint32Array
        ? new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
        : fromFloat32("F32", values),
    ],
  }));
  const metadata = { format: FORMAT, format_version: "1", what, head: JSON.stringify(head) };
  await writeSafetensors(path, tensors, metadata);
}

/** Reads one. @throws {InputError} when the file is something else or damaged */
export async function readEditor(
  path: string,
  what: "editor" | "training" = "editor",
): Promise<{ head: EditorHead; numbers: Numbers }> {
  using closing = new DisposableStack();
  const source = closing.adopt(await openFile(path), (source) => source.close());
  const file = await parseSafetensors(source);
  const { format, what: is, head: text = "null" } = file.metadata;
  if (format !== FORMAT || is !== what) {
    throw new InputError(`${path} is not a trained ${what === "editor" ? "editor" : "editor's training"}`, {
      hint: "Make one with the train command",
    });
  }
  let head: EditorHead;
  try {
    head = headSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new InputError(`${path} is not a trained editor: its metadata is damaged`, { cause });
  }
  const numbers = new Map<string, Float32Array | Uint32Array>();
  for (const [name, entry] of file.entries) {
    const buffer = (await file.read(entry)).slice().buffer as ArrayBuffer;
    if (entry.dtype === "U32") numbers.set(name, new Uint32Array(buffer));
    else if (entry.dtype === "F32") numbers.set(name, new Float32Array(buffer));
    else throw new InputError(`${path} does not fit: its ${name} is ${entry.dtype}, F32 or U32 is wanted`);
  }
  return { head, numbers };
}

/**
 * Refuses an editor that was trained for something else.
 * @param wanted the maps asked for, where somebody asks for certain ones
 * @throws {InputError} naming what differs
 */
export function requireFit(
  path: string,
  head: EditorHead,
  base: EditorBase,
  method: string,
  wanted?: readonly string[],
) {
  const short = (hash: string) => `${hash.slice(0, 8)}…`;
  if (head.method !== method) {
    throw new InputError(`${path} is an editor of ${head.method}, not of ${method}`);
  }
  if (head.base.hash !== base.hash) {
    throw new InputError(
      `${path} was trained for ${head.base.name} (${short(head.base.hash)}); this model is ${base.name} ` +
        `(${short(base.hash)})`,
      { hint: "An editor fits the very weights it was trained with: train one with the train command" },
    );
  }
  if (head.base.tokenizer !== base.tokenizer) {
    throw new InputError(
      `${path} was trained with another tokenizer (${short(head.base.tokenizer)}) than this model's`,
    );
  }
  if (wanted && wanted.join() !== head.roles.join()) {
    throw new InputError(
      `${path} edits ${head.roles.join(", ")}; the hyper-parameters ask for ${wanted.join(", ")}`,
      { hint: "Leave layers out to take the editor's own" },
    );
  }
}

/**
 * The file of a model's editor: the one given, in its training's folder or by itself, or `editors/NAME.safetensors` in or beside the model's folder.
 * @throws {InputError} when there is none
 */
export async function findEditor(model: LoadedModel, name: string, given?: string): Promise<string> {
  const { path } = model.checkpoint;
  const beside = [path, dirname(path.replace(/\/+$/, ""))].map((f) =>
    join(f, "editors", `${name}.safetensors`)
  );
  const ours = given ? [given, join(given, "editor.safetensors")] : beside;
  for (const candidate of ours) {
    if (await Deno.stat(candidate).then((info) => info.isFile, () => false)) return candidate;
  }
  if (given) throw new InputError(`No such editor: ${given}`);
  throw new InputError(`There is no trained ${name} editor for ${model.name}`, {
    hint:
      `Name one with --editor FILE, or make one: deno run -A cli.ts train --method ${name} --model ${model.name}`,
  });
}
