/**
 * A training's folder: `config.json` says what is trained on what, `editor.safetensors` is the best editor so far,
 * `training.safetensors` what a training goes on from, `summary.json` and `curves.svg` what came out. Everything is
 * written whole or not at all, so that a kill at any moment leaves a folder that `--resume` goes on from.
 */
import { join } from "node:path";
import { checkWritable, writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import {
  type EditorHead,
  type NamedNumbers,
  readEditor,
  writeEditor,
} from "../editors/hypernetworks/file.ts";
import type { Numbers } from "../editors/hypernetworks/network.ts";
import type { Quality } from "../editors/hypernetworks/validate.ts";
import { brief, difference } from "../evaluation/difference.ts";

/** What decides every bit of a training. */
export interface TrainingConfig {
  method: string;
  base: EditorHead["base"];
  data: { name: string; hash: string; records: number };
  validation: { name: string; hash: string; records: number };
  seed: number;
  hparams: Record<string, unknown>;
  version: string;
}

/** How far a training is. */
export interface TrainingState {
  /** Steps made. */
  step: number;
  /** Means between two readings; losses weighted. */
  losses: { step: number; edit: number; loc: number; norm: number; alpha?: number; margin?: number }[];
  validations: ({ step: number } & Quality)[];
  /** The validation that the editor was kept at. */
  best?: { step: number; loss: number };
}

/** Where the files are. */
export interface TrainingFolder {
  path: string;
  editor: string;
  state: string;
  summary: string;
  curves: string;
}

/** What a training's folder may hold. */
const OURS = /^(config|summary)\.json$|^(editor|training)\.safetensors$|^curves\.svg$|^\..*\.tmp$/;

/**
 * Opens a folder, a new one or, with `resume`, one of the same configuration; with what was reached there.
 * @throws {InputError} when it holds a training and `resume` is not set, or something else, or another configuration
 */
export async function openTraining<State = TrainingState>(
  path: string,
  config: TrainingConfig,
  resume: boolean,
): Promise<{ folder: TrainingFolder; reached?: { state: State; numbers: Numbers } }> {
  const at = (name: string) => join(path, name);
  const folder = {
    path,
    editor: at("editor.safetensors"),
    state: at("training.safetensors"),
    summary: at("summary.json"),
    curves: at("curves.svg"),
  };
  await checkTrainingFolder(path, resume);
  const earlier = await Deno.readTextFile(at("config.json")).catch(() => undefined);
  if (earlier === undefined) {
    await writeFileAtomic(at("config.json"), JSON.stringify(config, null, 2) + "\n");
    return { folder };
  }
  const found = difference(JSON.parse(earlier), config);
  if (found) {
    throw new InputError(
      `${path} holds a training of another ${found.key}: ${brief(found.a)} there, ${brief(found.b)} now`,
      { hint: "Go on with the same settings, or name another folder" },
    );
  }
  if (!await Deno.stat(folder.state).catch(() => undefined)) return { folder };
  const { head, numbers } = await readEditor(folder.state, "training");
  return { folder, reached: { state: head.training as State, numbers } };
}

/** Refuses a folder before any work. @throws {InputError} as {@link openTraining} */
export async function checkTrainingFolder(path: string, resume: boolean): Promise<void> {
  const entries = await Array.fromAsync(Deno.readDir(path)).catch(() => []);
  const names = entries.map(({ name }) => name);
  if (names.some((name) => !OURS.test(name))) {
    throw new InputError(`${path} holds something other than a training`, { hint: "Name a new folder" });
  }
  if (names.includes("config.json") && !resume) {
    throw new InputError(`${path} already holds a training`, {
      hint: "Go on with --resume, or name another folder",
    });
  }
  await checkWritable(join(path, "config.json"));
}

/** Writes what a training goes on from. */
export async function saveState<State extends object = TrainingState>(
  { state: path }: TrainingFolder,
  head: Omit<EditorHead, "training">,
  state: State,
  numbers: ReadonlyMap<string, NamedNumbers>,
): Promise<void> {
  await writeEditor(
    path,
    { ...head, training: { ...state } as Record<string, unknown> },
    numbers,
    "training",
  );
}
