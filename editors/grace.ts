/**
 * GRACE, General Retrieval Adaptors for Continual Editing (Hartvigsen et al. 2023, "Aging with GRACE: lifelong
 * model editing with discrete key-value adaptors"; guide section 10). The weights stay. A codebook stands beside
 * one linear map: keys are inputs that the map got at the last token of edited prompts, each with a radius ε and
 * a value that takes the place of the map's output. For a new edit with input q, label y and nearest key k_j at
 * the distance d:
 *
 *   d > ε_init + ε_j        a new entry (q, ε_init)
 *   else, label differs     a new entry, and both radii become d/2, the old one a hair less
 *   else                    ε_j becomes d where d is larger; the entry's value is trained on
 *
 * Then the entry's value is trained by Adam until the model says y. Labels are compared as sequences of ids; the
 * authors compare their means, which collide.
 */
import { z } from "npm:zod@4.6.7";
import { createHash } from "node:crypto";
import type { Addition, EntryInfo } from "../engine/models/additions/addition.ts";
import { codebookPart, type Replace } from "../engine/models/additions/codebook.ts";
import { additionsOn, partsWithout } from "../engine/models/additions/lay.ts";
import { type Model, weight } from "../engine/models/model.ts";
import { seededRandom } from "../engine/models/sample.ts";
import { keepBest } from "../engine/ops/optim.ts";
import { groupMean } from "../engine/ops/rows.ts";
import { temp } from "../engine/ops/context.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../engine/tensor/transfer.ts";
import { mapRows, withParts } from "./beside/map_rows.ts";
import { besideMethod } from "./beside/method.ts";
import { besideRecipe } from "./beside/recipes.ts";
import type { Edit } from "./edit.ts";
import { type Adaptation, type Example, train } from "./finetune/train.ts";

/** Hyper-parameters under the names of the authors' and EasyEdit's files. */
export const graceSchema = z.object({
  /** The layer of the codebook. */
  layers: z.array(z.number().int().min(0)).length(1),
  /** Beside which map of its MLP: the one in or the one out. */
  site: z.enum(["up", "down"]).default("down"),
  /** ε of a new entry: a distance between inputs of the map, so different for every model. */
  eps: z.number().positive(),
  /** Adam's learning rate of the value. */
  edit_lr: z.number().positive().default(1),
  n_iter: z.number().int().min(1).max(10000).default(100),
  /** A value starts at random in [0, 1), or as what the map gave. */
  val_init: z.enum(["cold", "warm"]).default("cold"),
  /** Tokens that get the value; `replace_prompt` leaves the prompt's last one out, as the authors' code does. */
  replacement: z.enum(["replace_all", "replace_prompt", "replace_last"]).default("replace_prompt"),
  /** An entry that meets its own label again: ε reaches to there, or the key moves half of the way as well. */
  eps_expand: z.enum(["coverage", "moving_average"]).default("coverage"),
  /** The value of the lowest loss, or the last one. */
  keep: z.enum(["best", "last"]).default("best"),
  /** Loss below which training ends; 0 trains to the last step, as the authors do. */
  stop_loss: z.number().min(0).default(0),
});

export type GraceHparams = z.infer<typeof graceSchema>;

const REPLACE: Record<GraceHparams["replacement"], Replace> = {
  replace_all: "all",
  replace_prompt: "prompt",
  replace_last: "last",
};

/** One entry of the codebook on the host. */
export interface GraceEntry {
  /** Made of its first key: what it is known by as it changes. */
  id: string;
  key: Float32Array;
  radius: number;
  value: Float32Array;
  /** Ids of the target. */
  label: readonly number[];
}

/**
 * The codebook's rule for one edit, before its value is trained; `book` is changed in place.
 * @param query the map's input at the prompt's last token
 * @param value what a new entry starts from
 * @returns the entries that are new or not as they were, the one to be trained first
 */
export function graceRule(
  book: GraceEntry[],
  { query, label, value }: { query: Float32Array; label: readonly number[]; value: Float32Array },
  { eps, eps_expand }: Pick<GraceHparams, "eps" | "eps_expand">,
): GraceEntry[] {
  const fresh = (radius: number) => {
    const id = createHash("sha256").update(new Uint8Array(query.slice().buffer)).digest("hex").slice(0, 16);
    // The same prompt with another label: two entries with one key, the first of which has no room left.
    const again = book.filter((entry) => entry.id.startsWith(id)).length;
    const entry = { id: again ? `${id}.${again}` : id, key: query, radius, value, label };
    book.push(entry);
    return entry;
  };
  const distances = book.map(({ key }) => distance(key, query));
  const d = Math.min(...distances);
  const near = book[distances.indexOf(d)];
  if (!near || d > eps + near.radius) return [fresh(eps)];
  if (near.label.join() !== label.join()) {
    near.radius = d / 2 - 1e-5;
    return [fresh(d / 2), near];
  }
  if (d > near.radius) {
    // A hair more: whatever order a device sums in, the edge lies inside.
    near.radius = d * (1 + 1e-6);
    if (eps_expand === "moving_average") near.key = near.key.map((x, i) => (x + query[i]) / 2);
  }
  return [near];
}

/** ‖a − b‖ */
export function distance(a: Float32Array, b: Float32Array): number {
  return Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0));
}

export const grace = besideMethod({
  name: "grace",
  summary: "GRACE (Hartvigsen et al. 2023): a codebook of keys and values beside one map",
  schema: graceSchema,
  recipe: (model) => besideRecipe(model.config, "grace"),
  measured: "eps",
  steps: ({ n_iter }) => n_iter,
  edit: (model, _requests, examples, options) => editGrace(model, examples, options),
});

/**
 * Edits examples, one after another by the codebook's rules; their values are trained together. The model is
 * left as it is.
 */
export async function editGrace(
  model: Model,
  examples: readonly Example[],
  { hparams, seed = 0 }: { hparams: GraceHparams; seed?: number },
): Promise<Pick<Edit, "deltas" | "additions" | "outcomes">> {
  const { layers: [layer], site, replacement, val_init } = hparams;
  const role = `layer.${layer}.mlp.${site}`;
  const empty: Addition = {
    kind: "codebook",
    role,
    settings: { replace: REPLACE[replacement] },
    entries: [],
    tensors: new Map(),
  };
  const book = bookOn(model, empty);
  const texts = examples.map(({ prompt }) => ({ ids: prompt, positions: [prompt.length - 1] }));
  const { inputs, outputs } = await mapRows(withParts(model, partsWithout(model, empty)), role, texts);
  const random = seededRandom(seed);
  const changed = new Set<GraceEntry>();
  const trained: GraceEntry[] = examples.map(({ target: label }, i) => {
    const value = val_init === "warm" ? outputs[i] : outputs[i].map(random);
    const entries = graceRule(book, { query: inputs[i], label, value }, hparams);
    entries.forEach((entry) => changed.add(entry));
    return entries[0];
  });
  const losses = await trainValues(model, empty, examples, trained, hparams);
  return {
    deltas: [],
    additions: [additionOf(empty, [...changed])],
    outcomes: losses.map((nlls, i) => ({
      steps: nlls.length - 1,
      losses: nlls.map((nll) => ({ nll, kl: 0, wd: 0 })),
      warnings: Math.min(...nlls) > nlls[0] / 2
        ? [
          `The value of edit ${i + 1} was not found: its loss went from ${nlls[0].toFixed(2)} to ` +
          `${
            Math.min(...nlls).toFixed(2)
          }; try another edit_lr than ${hparams.edit_lr}, or another replacement`,
        ]
        : [],
    })),
  };
}

/** The codebook that lies on the model in this place, entry by entry. */
function bookOn(model: Model, { role, settings }: Addition): GraceEntry[] {
  const found = additionsOn(model).find((a) =>
    a.kind === "codebook" && a.role === role && a.settings.replace === settings.replace
  );
  if (!found) return [];
  const w = weight(model, role);
  const rows = (name: string, width: number, i: number) =>
    found.tensors.get(name)!.values.slice(i * width, (i + 1) * width);
  return found.entries.map(({ id, label }, i) => ({
    id: id!,
    key: rows("keys", w.in, i),
    value: rows("values", w.out, i),
    radius: found.tensors.get("radius")!.values[i],
    label: label as number[],
  }));
}

function additionOf(empty: Addition, entries: readonly GraceEntry[]): Addition {
  const stack = (rows: readonly Float32Array[]) => {
    const [{ length }] = rows;
    const values = new Float32Array(rows.length * length);
    rows.forEach((row, i) => values.set(row, i * length));
    return { shape: [rows.length, length], values };
  };
  return {
    ...empty,
    entries: entries.map(({ id, label }): EntryInfo => ({ id, label })),
    tensors: new Map([
      ["keys", stack(entries.map(({ key }) => key))],
      ["values", stack(entries.map(({ value }) => value))],
      ["radius", { shape: [entries.length], values: Float32Array.from(entries, ({ radius }) => radius) }],
    ]),
  };
}

/**
 * Trains the values of entries, all together, each for the examples that have it.
 * @returns the losses of each example, step by step
 */
async function trainValues(
  model: Model,
  empty: Addition,
  examples: readonly Example[],
  entryOf: readonly GraceEntry[],
  { edit_lr, n_iter, keep, stop_loss }: GraceHparams,
): Promise<number[][]> {
  const { gpu } = model;
  const { role, settings } = empty;
  const entries = [...new Set(entryOf)];
  const n = entries.length, width = weight(model, role).out;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const start = new Float32Array(n * width);
  entries.forEach(({ value }, i) => start.set(value, i * width));
  const values = own(fromHost(gpu, "values", [n, width], start));
  const choice = own(
    fromHost(gpu, "choices", [examples.length], Uint32Array.from(entryOf, (entry) => entries.indexOf(entry))),
  );
  const ones = own(fromHost(gpu, "ones", [examples.length], new Float32Array(examples.length).fill(1)));
  const best = own(fromHost(gpu, "lowest losses", [n], new Float32Array(n).fill(3e38)));
  const kept = own(createTensor(gpu, "best values", [n, width]));
  const adaptation: Adaptation = {
    start: { at: "block", layer: Number(role.split(".")[1]) },
    parameters: [values],
    place: () =>
      withParts(model, [
        ...partsWithout(model, empty),
        codebookPart(role, values, settings.replace as Replace, () => choice),
      ]),
    watch(ctx, losses) {
      const sums = temp(ctx, "entry losses", [n]);
      groupMean(ctx, reshape(losses, [examples.length, 1]), choice, ones, reshape(sums, [n, 1]));
      keepBest(ctx, sums, values, best, kept);
    },
  };
  const training = await train(withParts(model, partsWithout(model, empty)), examples, adaptation, {
    objective_optimization: "target_new",
    num_steps: n_iter,
    lr: edit_lr,
    weight_decay: 0,
    batch_size: examples.length,
    threshold: stop_loss,
  });
  const found = await readF32(gpu, keep === "best" ? kept : values);
  entries.forEach((entry, i) => entry.value = found.slice(i * width, (i + 1) * width));
  return examples.map((_, i) => training.losses.map((row) => row[i]));
}
