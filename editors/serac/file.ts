/**
 * A trained SERAC editor as one safetensors file: the scope classifier's projection, and the adapter that makes
 * the base model answer from the edit in front of a prompt. It is for one base model, named by its hash.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { fromFloat32 } from "../../engine/io/convert.ts";
import { InputError } from "../../engine/io/errors.ts";
import { parseSafetensors, type TensorOut, writeSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";
import type { WeightDelta } from "../edit.ts";
import type { Projection } from "../prompts/edit.ts";
import { type EncoderName, parseEncoderName } from "../prompts/encoder_name.ts";

/** What training made. */
export interface SeracEditor {
  /** The objective that it was trained by. */
  method: "serac" | "serac-easyedit";
  /** `Checkpoint.hash()` of the base model. */
  base: string;
  encoder: EncoderName;
  projection: Projection;
  /** Factors on the base model's maps. */
  adapter: WeightDelta[];
  /** How it was trained: steps, seed, data, validation; numbers and texts. */
  training: Record<string, unknown>;
}

const FORMAT = "emend-serac";

/** Writes an editor, whole or not at all. */
export async function writeSerac(path: string, editor: SeracEditor): Promise<void> {
  const { method, base, encoder, projection: { mean, matrix, bias }, adapter, training } = editor;
  const tensor = (name: string, shape: number[], values: Float32Array): TensorOut => (
    { name, dtype: "F32", shape, data: () => [fromFloat32("F32", values)] }
  );
  const tensors = [
    tensor("scope.mean", [mean.length], mean),
    tensor("scope.matrix", [bias.length, mean.length], matrix),
    tensor("scope.bias", [bias.length], bias),
    ...adapter.flatMap(({ role, rank, left, right }) => [
      tensor(`${role}.left`, [left.length / rank, rank], left),
      tensor(`${role}.right`, [right.length / rank, rank], right),
    ]),
  ];
  await writeSafetensors(path, tensors, {
    format: FORMAT,
    format_version: "1",
    method,
    base_hash: base,
    encoder: JSON.stringify(encoder),
    training: JSON.stringify(training),
  });
}

/** Reads an editor. @throws {InputError} when the file is something else or damaged */
export async function readSerac(path: string): Promise<SeracEditor> {
  const source = await openFile(path);
  using _closing = { [Symbol.dispose]: () => source.close() };
  const file = await parseSafetensors(source);
  const { format, method, base_hash, encoder, training = "{}" } = file.metadata;
  if (format !== FORMAT || (method !== "serac" && method !== "serac-easyedit") || !base_hash) {
    throw new InputError(`${path} is not a trained SERAC editor`);
  }
  const tensors = new Map<string, { shape: number[]; values: Float32Array }>();
  for (const entry of file.entries.values()) {
    if (entry.dtype !== "F32") throw new InputError(`${path} has a tensor "${entry.name}" that is not F32`);
    const bytes = (await file.read(entry)).slice();
    tensors.set(entry.name, { shape: entry.shape, values: new Float32Array(bytes.buffer) });
  }
  const take = (name: string, dimensions: number) => {
    const found = tensors.get(name);
    if (found?.shape.length === dimensions) return found;
    throw new InputError(`${path} has no tensor "${name}" of ${dimensions} dimensions`);
  };
  const [mean, matrix, bias] = [take("scope.mean", 1), take("scope.matrix", 2), take("scope.bias", 1)];
  if (matrix.shape[0] !== bias.shape[0] || matrix.shape[1] !== mean.shape[0]) {
    throw new InputError(`${path} has a projection whose parts do not fit each other`);
  }
  const roles = [...tensors.keys()].filter((name) => name.endsWith(".left")).map((name) => name.slice(0, -5));
  return {
    method,
    base: base_hash,
    encoder: parseEncoderName(encoder, path),
    projection: { mean: mean.values, matrix: matrix.values, bias: bias.values },
    adapter: roles.map((role) => {
      const [left, right] = [take(`${role}.left`, 2), take(`${role}.right`, 2)];
      return { role, rank: left.shape[1], left: left.values, right: right.values };
    }),
    training: JSON.parse(training),
  };
}

/** A trained editor and the file that it came from. */
export interface FoundEditor {
  editor: SeracEditor;
  path: string;
  /** SHA-256 of the file. */
  hash: string;
}

/** Editors that were found, by the hashes that memories name them by. */
const FOUND = new Map<string, FoundEditor>();

type Base = { name: string; checkpoint: { hash(): Promise<string> } };

/**
 * The trained editor of a model: the file or the folder of a training given, or `NAME.safetensors` in a folder `editors` in or beside the
 * model's folder. (Memories name the editor by its file's hash.)
 * @throws {InputError} when there is none, or it was trained for another model
 */
export async function findSerac(model: Base, name: string, given?: string): Promise<FoundEditor> {
  const beside = [model.name, dirname(model.name.replace(/\/+$/, ""))];
  const candidates = given
    ? [given, join(given, "editor.safetensors")]
    : beside.map((folder) => join(folder, "editors", `${name}.safetensors`));
  const there = await Promise.all(
    candidates.map((path) => Deno.stat(path).then(({ isFile }) => isFile, () => false)),
  );
  const path = candidates[there.indexOf(true)];
  if (path === undefined) {
    throw new InputError(
      given ? `No such editor: ${given}` : `There is no trained ${name} editor for ${model.name}`,
      {
        hint:
          "--set editor=FILE names one; --set counterfactual=base --set scope=encoder does without training",
      },
    );
  }
  const editor = await readSerac(path);
  if (editor.method !== name) {
    throw new InputError(`${path} was trained by the objective of ${editor.method}, not of ${name}`);
  }
  const base = await model.checkpoint.hash();
  if (editor.base !== base) {
    throw new InputError(
      `${path} was trained for model ${editor.base.slice(0, 8)}…; this model is ${base.slice(0, 8)}…`,
    );
  }
  const hash = createHash("sha256").update(await Deno.readFile(path)).digest("hex");
  const found = { editor, path, hash };
  FOUND.set(hash, found);
  return found;
}

/**
 * The editor that a memory was made with.
 * @throws {InputError} when it is not there, or another one is
 */
export async function seracOf(model: Base, name: string, hash: string): Promise<FoundEditor> {
  const known = FOUND.get(hash);
  if (known && known.editor.base === await model.checkpoint.hash()) return known;
  const found = await findSerac(model, name);
  if (found.hash === hash) return found;
  throw new InputError(`The memory was made with another ${name} editor than ${found.path}`);
}
