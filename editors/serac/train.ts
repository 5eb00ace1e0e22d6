/** Trains a SERAC editor for a model: scope classifier and counterfactual model, by either objective. */
import { InputError } from "../../engine/io/errors.ts";
import type { LoadedModel } from "../../engine/models/load.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import type { WeightDelta } from "../edit.ts";
import type { NamedNumbers } from "../hypernetworks/file.ts";
import type { Numbers as NumbersByName } from "../hypernetworks/network.ts";
import type { Projection } from "../prompts/edit.ts";
import type { Encoder } from "../prompts/encoders.ts";
import type { Course, Reached } from "./course.ts";
import { copySource, pairSource, type SeracRecord, tripleSource } from "./data.ts";
import type { FoundEditor, SeracEditor } from "./file.ts";
import { trainAdapter } from "./train_adapter.ts";
import { type Mixture, type MixtureTraining, trainMixture } from "./train_mixture.ts";
import { trainScope } from "./train_scope.ts";

/** Settings of both parts. */
export interface SeracTraining extends Session {
  scope: { width: number; steps: number; batch: number; lr: number };
  adapter: {
    rank: number;
    steps: number;
    batch: number;
    lr: number;
    val_interval: number;
    patience: number;
  };
  seed: number;
}

/** What a training goes on from, and whom it tells of itself. */
export interface Session {
  /** Where an earlier session was. */
  reached?: SeracReached;
  /** Steps between two calls of `onSave`. */
  saveEvery?: number;
  onSave?: (reached: SeracReached<Map<string, NamedNumbers>>) => Promise<void>;
  /** The best editor so far. */
  onBest?: (editor: SeracEditor) => Promise<void>;
  onProgress?: Progress;
}

/** How far a training is. */
export interface SeracReached<Numbers = NumbersByName> {
  /** The scope classifier, when it is ready. */
  scope?: { projection: Projection; course: Course };
  /** The part in training; without it, it has not begun. */
  part?: Reached<Numbers>;
}

/** Called as training goes on; `validation` is the loss on what is never trained on. */
export type Progress = (
  part: "embeddings" | "scope" | "counterfactual" | "mixture",
  done: number,
  total: number,
  loss?: number,
  validation?: number,
) => void;

/** What the shipped editor of atlas was trained with. */
export const SERAC_TRAINING: Omit<SeracTraining, keyof Session> = {
  scope: { width: 64, steps: 1500, batch: 512, lr: 2e-3 },
  adapter: { rank: 16, steps: 1000, batch: 16, lr: 3e-3, val_interval: 100, patience: 4 },
  seed: 0,
};

/** Settings of EasyEdit's objective, with which atlas' other editor was trained. */
export const EASYEDIT_TRAINING: Omit<MixtureTraining, keyof Session | "seed" | "start"> & {
  pairs: number;
  patience: number;
} = {
  ...{ width: 64, rank: 16, steps: 120, batch: 10, lr: 1e-3, val_interval: 20, patience: 4 },
  ...{ cedit: 0.1, cloc: 1, pairs: 1200 },
};

/** Texts embedded at a time. */
const EMBEDDED = 1024;
/** Every n-th subject is kept for validation. */
const VALIDATION = 12;
/** Examples of a validation, and at most of one of its records: a few records have no more to say. */
const HELD_TRIPLES = 2000, HELD_COPIES = 160, HELD_PAIRS = 80, OF_ONE_RECORD = 10;

/**
 * Trains an editor by the original's objective; the model's weights stay as they are. The two parts share nothing,
 * so each has the optimiser to itself (guide section 6.4).
 * @param data what the records are, for the editor's file
 * @throws {PartDivergedError} when a value is not finite
 */
export async function trainSerac(
  model: LoadedModel,
  encoder: Encoder,
  records: readonly SeracRecord[],
  data: string,
  options: SeracTraining,
): Promise<SeracEditor> {
  const { seed, reached, saveEvery, onSave, onBest, onProgress } = options;
  const { learnt, kept } = splitRecords(records);
  const scope = reached?.scope ??
    await trainClassifier(model, encoder, records, { learnt, kept }, options);
  if (!reached?.scope) await onSave?.({ scope });
  const copies = (which: readonly number[], seed: number) =>
    copySource(model.tokenizer, which.map((i) => records[i]), seededRandom(seed));
  const base = await model.checkpoint.hash();
  const editorOf = (adapter: WeightDelta[], course: Course): SeracEditor => ({
    method: "serac",
    base,
    encoder: encoder.name,
    projection: scope.projection,
    adapter,
    training: {
      data,
      records: learnt.length,
      validation: kept.length,
      seed,
      scope: { ...options.scope, ...scope.course },
      adapter: { ...options.adapter, ...course },
    },
  });
  const { adapter, course } = await trainAdapter(
    model,
    copies(learnt, seed + 2),
    Array.from({ length: heldOf(HELD_COPIES, kept) }, copies(kept, seed + 4)),
    {
      ...{ ...options.adapter, seed, saveEvery, reached: reached?.scope && reached.part },
      onSave: onSave && ((part) => onSave({ scope, part })),
      onBest: async (adapter, course) => await onBest?.(editorOf(adapter, course)),
      onProgress: (...now) => onProgress?.("counterfactual", ...now),
    },
  );
  return editorOf(adapter, course);
}

async function trainClassifier(
  model: LoadedModel,
  encoder: Encoder,
  records: readonly SeracRecord[],
  { learnt, kept }: { learnt: number[]; kept: number[] },
  { scope, seed, reached, saveEvery, onSave, onProgress }: SeracTraining,
): Promise<{ projection: Projection; course: Course }> {
  const starts: number[] = [];
  let count = 0;
  for (const { wordings } of records) {
    starts.push(count);
    count += wordings.length;
  }
  const embeddings = await embedAll(encoder, records.flatMap(({ wordings }) => wordings), onProgress);
  const triples = (which: readonly number[], seed: number) =>
    tripleSource(records, which, seededRandom(seed));
  return await trainScope(
    model.gpu,
    embeddings,
    encoder.width,
    triples(learnt, seed + 1),
    Array.from({ length: heldOf(HELD_TRIPLES, kept) }, triples(kept, seed + 3)),
    ([record, wording]) => starts[record] + wording,
    {
      ...{ ...scope, seed, saveEvery, reached: reached?.part },
      onSave: onSave && ((part) => onSave({ part })),
      onProgress: (...now) => onProgress?.("scope", ...now),
    },
  );
}

/** Trains an editor by EasyEdit's objective: both parts together, see train_mixture.ts. */
export async function trainSeracEasyEdit(
  model: LoadedModel,
  encoder: Encoder,
  records: readonly SeracRecord[],
  data: string,
  { pairs: count, seed, start, reached, saveEvery, onSave, onBest, onProgress, ...options }:
    & typeof EASYEDIT_TRAINING
    & Session
    & {
      seed: number;
      /** An editor of the original's objective, whose counterfactual model is where this one's starts. */
      start?: FoundEditor;
    },
): Promise<SeracEditor> {
  const { learnt, kept } = splitRecords(records);
  const draw = (which: readonly number[], count: number, seed: number) =>
    Array.from(
      { length: count },
      pairSource(model.tokenizer, which.map((i) => records[i]), seededRandom(seed)),
    );
  const pairs = [...draw(learnt, count, seed + 1), ...draw(kept, heldOf(HELD_PAIRS, kept), seed + 2)];
  const texts = pairs.flatMap(({ texts: { edit, asked, other } }) => [edit, asked, other]);
  const embeddings = await embedAll(encoder, texts, onProgress);
  const placed = pairs.map((pair, i) => (
    { ...pair, rows: { edit: 3 * i, asked: 3 * i + 1, other: 3 * i + 2 } }
  ));
  const base = await model.checkpoint.hash();
  const editorOf = ({ projection, adapter }: Mixture, course: Course): SeracEditor => ({
    ...{ method: "serac-easyedit", base, encoder: encoder.name, projection, adapter },
    training: {
      ...{ data, records: learnt.length, validation: kept.length, seed },
      ...{ pairs: count, ...start && { start: start.hash }, ...options, ...course },
    },
  });
  const { course, ...made } = await trainMixture(
    model,
    embeddings,
    encoder.width,
    placed.slice(0, count),
    placed.slice(count),
    {
      ...{ ...options, seed, start: start?.editor.adapter, saveEvery, reached: reached?.part },
      onSave: onSave && ((part) => onSave({ part })),
      onBest: async (made, course) => await onBest?.(editorOf(made, course)),
      onProgress: (...now) => onProgress?.("mixture", ...now),
    },
  );
  return editorOf(made, course);
}

function heldOf(most: number, kept: readonly number[]): number {
  return Math.min(most, OF_ONE_RECORD * kept.length);
}

async function embedAll(
  encoder: Encoder,
  texts: readonly string[],
  onProgress?: Progress,
): Promise<Float32Array> {
  const count = texts.length;
  const embeddings = new Float32Array(count * encoder.width);
  for (let at = 0; at < count; at += EMBEDDED) {
    embeddings.set(await encoder.embed(texts.slice(at, at + EMBEDDED)), at * encoder.width);
    onProgress?.("embeddings", Math.min(count, at + EMBEDDED), count);
  }
  return embeddings;
}

/** Refuses records that are too few. @throws {InputError} */
export function requireSubjects(records: readonly SeracRecord[]): void {
  const { size } = new Set(records.map(({ subject }) => subject));
  if (size >= 4) return;
  throw new InputError(`SERAC needs facts about at least four subjects to train on, got ${size}`, {
    hint: "It learns to tell two apart, and is validated with two others",
  });
}

/** Records to learn from and, about other subjects, to validate with; two subjects at least on either side. */
function splitRecords(records: readonly SeracRecord[]): { learnt: number[]; kept: number[] } {
  requireSubjects(records);
  const subjects = [...new Set(records.map(({ subject }) => subject))];
  const every = Math.min(VALIDATION, Math.floor(subjects.length / 2));
  const held = new Set(subjects.filter((_, i) => i % every === every - 1));
  const [learnt, kept] = [false, true].map((of) =>
    [...records.keys()].filter((i) => held.has(records[i].subject) === of)
  );
  return { learnt, kept };
}
