/**
 * A training's folder: `config.json` says what is trained on what, `editor.safetensors` is the best editor so far,
 * `training.safetensors` what a training goes on from, `summary.json` and `curves.svg` what came out. Everything is
 * written whole or not at all, so that a kill at any moment leaves a folder that `--resume` goes on from.
 */
import { join } from "node:path";
import { checkWritable, writeFileAtomic } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";
import { lockFolder } from "../engine/io/lock.ts";
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

/** Where the files are; until it is disposed of, nobody else trains there. */
export interface TrainingFolder extends Disposable {
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
 * @throws {InputError} when it holds a training and `resume` is not set, or something else, or another configuration,
 *   or when another process trains there
 */
export async function openTraining<State = TrainingState>(
  path: string,
  config: TrainingConfig,
  resume: boolean,
): Promise<{ folder: TrainingFolder; reached?: { state: State; numbers: Numbers } }> {
  const at = (name: string) => join(path, name);
  await checkTrainingFolder(path, resume);
  const earlier = await Deno.readTextFile(at("config.json")).catch(() => undefined);
  if (earlier === undefined) {
    await writeFileAtomic(at("config.json"), JSON.stringify(config, null, 2) + "\n");
  }
  const found = earlier && difference(JSON.parse(earlier), config);
  if (found) {
    throw new InputError(
      `${path} holds a training of another ${found.key}: ${brief(found.a)} there, ${brief(found.b)} now`,
      { hint: "Go on with the same settings, or name another folder" },
    );
  }
  using opening = new DisposableStack();
  opening.use(await lockFolder(path, "config.json"));
  const state = at("training.safetensors");
  const reached = await Deno.stat(state).then(() => readEditor(state, "training"), () => undefined);
  const open = opening.move();
  const folder = {
    path,
    editor: at("editor.safetensors"),
    state,
    summary: at("summary.json"),
    curves: at("curves.svg"),
    [Symbol.dispose]: () => open.dispose(),
  };
  if (!reached) return { folder };
  return { folder, reached: { state: reached.head.training as State, numbers: reached.numbers } };
}

/** Refuses a folder before any work. @throws {InputError} as {@link openTraining} */
export async function checkTrainingFolder(path: string, resume: boolean): Promise<void> {
  const entries = await Array.fromAsync(Deno.readDir(path)).catch(() => []);
  const names = entries.map(({ name }) => name);
  if (names.some((name) => !OURS.test(name))) {
    throw new InputError(`${path} holds something other than a training`, { hint: "Name a new folder" });
  }
  if (names.includes("config.json")) {
    if (!resume) {
      throw new InputError(`${path} already holds a training`, {
        hint: "Go on with --resume, or name another folder",
      });
    }
    using _free = await lockFolder(path, "config.json");
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
