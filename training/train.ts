/**
 * The training of editors (memory-and-meta guide section 1.1): groups of edits by their number, one after the other;
 * every so often a validation on edits that are never trained on, and the best editor is kept; training ends when
 * there was no better one for a while, and only the best one is judged. All that decides the result is in the
 * configuration, so a training that was interrupted goes on to the very bytes that it would have come to.
 */
import type { LoadedModel } from "../engine/models/load.ts";
import { type EditorHead, readEditor, writeEditor } from "../editors/hypernetworks/file.ts";
import type { CommonTraining, WeightedTraining } from "../editors/hypernetworks/hparams.ts";
import type { EditorKind } from "../editors/hypernetworks/kinds.ts";
import {
  DivergedError,
  networkTensors,
  readNumbers,
  type Trainee,
} from "../editors/hypernetworks/learner.ts";
import type { Hypernetwork } from "../editors/hypernetworks/network.ts";
import type { EditGroup } from "../editors/hypernetworks/step.ts";
import { type Quality, validate } from "../editors/hypernetworks/validate.ts";
import { openTraining, saveState, type TrainingConfig, type TrainingState } from "./folder.ts";
import { exampleAt, type ExampleSource, tokenise } from "./source.ts";

/** What people see while it runs. */
export interface TrainingReport {
  step: number;
  steps: number;
  /** Means since the last report, weighted. */
  edit: number;
  loc: number;
  /** Of a constrained training: the multiplier and the bound. */
  alpha?: number;
  margin?: number;
  /** After this very step. */
  validation?: Quality;
  /** Seconds left to the last step at the pace so far; it may end earlier. */
  left: number;
}

export interface TrainingOptions {
  kind: EditorKind;
  hparams: CommonTraining;
  config: TrainingConfig;
  train: ExampleSource;
  validation: ExampleSource;
  out: string;
  resume: boolean;
  /** Steps from one saved state to the next. */
  saveEvery: number;
  onReport?: (report: TrainingReport) => void;
}

/** What came out. */
export interface TrainingResult {
  editor: string;
  state: TrainingState;
  /** Of the best editor, on all records for validation. */
  final: Quality;
  ended: "no better validation" | "last step";
  roles: readonly string[];
  parameters: number;
}

/** Steps from one reading of the losses to the next. */
const READING = 10;
/** Groups of edits of the last validation at most. */
const FINAL = 500;

/**
 * Trains an editor.
 * @throws {DivergedError} with step and cause when a value is not finite; the best editor so far stays
 * @throws {InputError} for a folder that it cannot go into, or an example that does not fit the model
 */
export async function trainEditor(model: LoadedModel, options: TrainingOptions): Promise<TrainingResult> {
  const { kind, hparams, config, saveEvery, onReport } = options;
  const { folder, reached } = await openTraining(options.out, config, options.resume);
  using _open = folder;
  const roles = kind.roles(model, hparams), shape = kind.shape(hparams);
  using network = kind.network(model, roles, shape, reached?.numbers, config.seed);
  using learner = kind.learner(model, network, hparams);
  if (reached) learner.restore(reached.numbers);
  const state: TrainingState = reached?.state ?? { step: 0, losses: [], validations: [] };
  const head = { method: kind.name, base: config.base, roles, shape };
  const { cedit: c_edit = 1, cloc: c_loc = 1 } = hparams as Partial<WeightedTraining>;
  const weights = { c_edit, c_loc };
  const held = groupsOf(model, options.validation, hparams.n_edits, config.seed);
  const groups = groupsOf(model, options.train, hparams.n_edits, config.seed);
  const checks = Array.from({ length: validationGroups(options, hparams.val_steps) }, (_, i) => held(i));

  const began = performance.now(), firstStep = state.step;
  let ended: TrainingResult["ended"] = "last step";
  try {
    while (state.step < hparams.max_steps && !outOfPatience(state, hparams)) {
      const { accumulate_bs: size } = hparams, at = state.step;
      learner.step(Array.from({ length: size }, (_, i) => groups(at * size + i)), at);
      state.step++;
      const due = (every: number) => state.step % every === 0 || state.step === hparams.max_steps;
      if (due(READING) || due(hparams.val_interval) || due(saveEvery)) {
        await readLosses(learner, state);
      }
      const validation = due(hparams.val_interval)
        ? await validate(model, network, checks, weights, together(hparams))
        : undefined;
      if (validation) {
        learner.validated?.(validation);
        await keepIfBest(model, network, { state, validation, path: folder.editor, head, config });
      }
      if (due(hparams.val_interval) || due(saveEvery)) {
        await saveState(folder, head, state, await learner.state());
      }
      if (due(READING) || due(hparams.val_interval)) {
        const pace = (performance.now() - began) / 1000 / (state.step - firstStep);
        const { edit, loc, alpha, margin } = state.losses.at(-1)!;
        const left = pace * (hparams.max_steps - state.step);
        onReport?.({
          step: state.step,
          steps: hparams.max_steps,
          edit,
          loc,
          alpha,
          margin,
          validation,
          left,
        });
      }
    }
  } catch (error) {
    if (!(error instanceof DivergedError) || !state.best) throw error;
    throw new DivergedError(
      error.step,
      error.why,
      `${folder.editor} keeps the one of step ${state.best.step}`,
    );
  }
  if (outOfPatience(state, hparams)) ended = "no better validation";

  const { numbers } = await readEditor(folder.editor);
  using best = kind.network(model, roles, shape, numbers);
  const all = Array.from({ length: validationGroups(options, FINAL) }, (_, i) => held(i));
  const final = await validate(model, best, all, weights, together(hparams));
  const parameters = best.parameters.reduce(
    (n, { tensor: { shape } }) => n + shape.reduce((a, b) => a * b, 1),
    0,
  );
  return { editor: folder.editor, state, final, ended, roles, parameters };
}

/** Groups that are validated in one batch of rows: about sixteen edits. */
function together({ n_edits }: CommonTraining): number {
  return Math.max(1, Math.floor(16 / n_edits));
}

function validationGroups({ validation, hparams }: TrainingOptions, most: number): number {
  return Math.max(1, Math.min(most, Math.floor(validation.count / hparams.n_edits)));
}

/** The `index`th group of edits of a source. */
function groupsOf(
  model: LoadedModel,
  source: ExampleSource,
  size: number,
  seed: number,
): (index: number) => EditGroup {
  const { tokenizer, dims: { maxPositions } } = model;
  return (index) =>
    Array.from(
      { length: size },
      (_, i) => tokenise(tokenizer, exampleAt(source, seed, index * size + i), maxPositions),
    );
}

async function readLosses(learner: Trainee, state: TrainingState): Promise<void> {
  const { steps, ...means } = await learner.progress();
  if (steps > 0) state.losses.push({ step: state.step, ...means });
}

function outOfPatience({ step, best }: TrainingState, { early_stop_patience }: CommonTraining): boolean {
  return best !== undefined && step - best.step >= early_stop_patience;
}

interface Kept {
  state: TrainingState;
  validation: Quality;
  path: string;
  head: Omit<EditorHead, "training">;
  config: TrainingConfig;
}

/** Keeps the editor when its validation loss is the lowest so far. */
async function keepIfBest(
  model: LoadedModel,
  network: Hypernetwork,
  { state, validation, path, head, config }: Kept,
): Promise<void> {
  const { step } = state;
  const loss = validation.editLoss + validation.locLoss;
  if (!Number.isFinite(loss)) throw new DivergedError(step, "the loss of the validation is");
  state.validations.push({ step, ...validation });
  if (state.best && loss >= state.best.loss) return;
  state.best = { step, loss };
  const { data, seed, hparams, version } = config;
  const training = { step, validation, data, seed, hparams, version };
  await writeEditor(path, { ...head, training }, await readNumbers(model, networkTensors(network)));
}
