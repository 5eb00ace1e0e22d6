/**
 * WISE (Wang et al. 2024, "WISE: rethinking the knowledge memory for lifelong model editing"; guide section 11).
 * The weights stay. Beside one linear map stand side memories, changes of its matrix that are trained on edits;
 * each prompt is answered by the memory that moves the map's output most, if that is about as far as it moves the
 * memory's own edits, and else by the model as it was.
 *
 * Within a memory only a random share of the elements is trained. After `save_freq` edits the next memory begins,
 * with another mask, and after `merge_freq` edits the newest ones are merged into one by TIES (ties.ts). Weight
 * decay acts on the mask's elements only; in the authors' code it shrinks those outside it, which are to stay.
 */
import { z } from "npm:zod@4.6.7";
import { createHash } from "node:crypto";
import type { Addition, EntryInfo } from "../engine/models/additions/addition.ts";
import { InputError } from "../engine/io/errors.ts";
import { additionsOn, partsWithout } from "../engine/models/additions/lay.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { activationOf, type Model, weight } from "../engine/models/model.ts";
import { sizeOf } from "../engine/tensor/tensor.ts";
import { inContexts } from "./beside/in_contexts.ts";
import { withParts } from "./beside/map_rows.ts";
import { besideMethod } from "./beside/method.ts";
import { ordinaryTexts } from "./beside/ordinary.ts";
import { besideRecipe } from "./beside/recipes.ts";
import { contexts } from "./contexts.ts";
import type { Edit, EditOutcome } from "./edit.ts";
import type { Example } from "./finetune/train.ts";
import { ties } from "./wise/ties.ts";
import { trainMemory } from "./wise/train.ts";

/** Hyper-parameters under the names of EasyEdit's files. */
export const wiseSchema = z.object({
  /** The layer of the side memory. */
  layers: z.array(z.number().int().min(0)).length(1),
  /** Beside which map of its MLP: the one in or the one out. */
  site: z.enum(["up", "down"]).default("down"),
  /** α, β, γ: an unrelated text moves less than α, the edit's own more than β, and γ lies between the two. */
  act_margin: z.tuple([z.number().positive(), z.number().positive(), z.number().positive()]),
  /** A prompt is a memory's if it moves at least this share of the least of the memory's own edits. */
  act_ratio: z.number().positive().default(0.88),
  /** Share of the matrix that a memory may change. */
  mask_ratio: z.number().gt(0).max(1).default(0.2),
  edit_lr: z.number().positive().default(1),
  n_iter: z.number().int().min(1).max(10000).default(70),
  /** No element changes by more. */
  norm_constraint: z.number().positive().default(1),
  weight_decay: z.number().min(0).default(1e-5),
  /** Edits after which a memory is full. */
  save_freq: z.number().int().min(1).default(500),
  /** Edits after which the memories since the last time are merged; a multiple of save_freq. */
  merge_freq: z.number().int().min(1).default(1000),
  /** TIES: share of each memory that is kept. */
  densities: z.number().gt(0).max(1).default(0.53),
  /** Texts before the prompt, [tokens, how many]; the bare prompt is always one of them. */
  context_template_length_params: z.array(z.tuple([z.number().int().min(1), z.number().int().min(0)]))
    .default([[5, 5], [10, 5]]),
});

export type WiseHparams = z.infer<typeof wiseSchema>;

/** Unrelated texts: how many, and their tokens. The authors take questions of another data set. */
const OTHERS = 32, OTHER_TOKENS = 12;

const othersOf = (model: LoadedModel, seed: number) => ordinaryTexts(model, OTHERS, OTHER_TOKENS, seed);

export const wise = besideMethod({
  name: "wise",
  summary: "WISE (Wang et al. 2024): side memories of one map, and a router by how far they move it",
  schema: wiseSchema,
  recipe: (model) => besideRecipe(model.config, "wise"),
  measured: "act_margin",
  steps: ({ n_iter }) => n_iter,
  prepare: async (model, { context_template_length_params: lengths }, seed) => {
    await contexts(model, lengths, seed, "words");
    await othersOf(model, seed);
  },
  async edit(model, requests, examples, { hparams, seed = 0 }) {
    const lengths = hparams.context_template_length_params;
    const texts = await inContexts(model, requests, examples, lengths, seed);
    const others = await othersOf(model, seed);
    return await editWise(model, texts, { hparams, seed, others });
  },
});

/** One memory on the host. */
interface Memory {
  id: string;
  delta: Float32Array;
  /** Least D of its edits. */
  scope: number;
  /** How many they are. */
  edits: number;
  /** Names of those that it was merged of. */
  replaces?: string[];
}

/**
 * Edits, one after another. The model is left as it is; in a sequence its side memories go on.
 * @param texts each edit's prompt in several contexts, with the target
 */
export async function editWise(
  model: Model,
  texts: readonly (readonly Example[])[],
  { hparams, seed = 0, others }: {
    hparams: WiseHparams;
    seed?: number;
    /** Texts that have nothing to do with the edits; they take turns. */
    others: readonly (readonly number[])[];
  },
): Promise<Pick<Edit, "deltas" | "additions" | "outcomes">> {
  const { layers: [layer], site, act_ratio, save_freq, merge_freq, densities } = hparams;
  const role = `layer.${layer}.mlp.${site}`;
  if (merge_freq % save_freq !== 0) {
    throw new InputError(`merge_freq must be a multiple of save_freq, got ${merge_freq} and ${save_freq}`);
  }
  const activation = activationOf(model);
  const empty: Addition = {
    kind: "side-memory",
    role,
    settings: { activation, ratio: act_ratio },
    entries: [],
    tensors: new Map(),
  };
  const { shape } = weight(model, role).matrix;
  const bare = withParts(model, partsWithout(model, empty));
  const memories = memoriesOn(model, empty);
  const made = new Set<Memory>();
  const outcomes: EditOutcome[] = [];
  for (const [i, edit] of texts.entries()) {
    const done = memories.reduce((sum, { edits }) => sum + edits, 0);
    const index = Math.floor(done / save_freq);
    if (done % save_freq === 0) {
      // Named by its first edit: memories that were made apart lie side by side when they are stacked.
      const id = createHash("sha256").update(JSON.stringify([edit, seed, index])).digest("hex").slice(0, 12);
      memories.push({ id, delta: new Float32Array(sizeOf(shape)), scope: Infinity, edits: 0 });
    }
    const memory = memories.at(-1)!;
    const trained = await trainMemory(bare, {
      ...{ role, delta: memory.delta, texts: edit, activation },
      other: others[done % others.length],
      seed: seed + index,
    }, hparams);
    memory.delta = trained.delta;
    memory.scope = Math.min(memory.scope, trained.scope);
    memory.edits++;
    made.add(memory);
    outcomes.push(outcomeOf(trained.losses, i, hparams));
    if ((done + 1) % merge_freq === 0) {
      const shards = memories.splice(-merge_freq / save_freq);
      const merged: Memory = {
        id: shards.map(({ id }) => id).join("+"),
        delta: ties(shards.map(({ delta }) => delta), shards.map(() => 1 / shards.length), densities),
        scope: Math.min(...shards.map(({ scope }) => scope)),
        edits: merge_freq,
        replaces: shards.map(({ id }) => id),
      };
      memories.push(merged);
      shards.forEach((shard) => made.delete(shard));
      made.add(merged);
    }
  }
  return { deltas: [], additions: [additionOf(empty, [...made], shape)], outcomes };
}

function outcomeOf(
  losses: readonly { nll: number; margin: number }[],
  i: number,
  { edit_lr, act_margin: [, beta] }: WiseHparams,
): EditOutcome {
  const last = losses.at(-1)!;
  const warnings: string[] = [];
  if (last.nll > losses[0].nll / 2) {
    const went = `from ${losses[0].nll.toFixed(2)} to ${last.nll.toFixed(2)}`;
    warnings.push(`The loss of edit ${i + 1} went ${went}; try another edit_lr than ${edit_lr}`);
  }
  if (last.margin > beta / 2) {
    warnings.push(
      `Edit ${i + 1} does not move the map's output far enough (${last.margin.toFixed(2)} short); ` +
        "recipe calibrate measures act_margin",
    );
  }
  return {
    steps: losses.length,
    // The margins are what keeps other texts as they are.
    losses: losses.map(({ nll, margin }) => ({ nll, kl: margin, wd: 0 })),
    warnings,
  };
}

/** The side memories that lie on the model in this place. */
function memoriesOn(model: Model, { role, settings }: Addition): Memory[] {
  const found = additionsOn(model).find((a) =>
    a.kind === "side-memory" && a.role === role && a.settings.ratio === settings.ratio
  );
  if (!found) return [];
  const { values } = found.tensors.get("delta")!;
  const size = values.length / found.entries.length;
  return found.entries.map(({ id, edits }, i) => ({
    id: id!,
    edits: edits as number,
    delta: values.slice(i * size, (i + 1) * size),
    scope: found.tensors.get("scope")!.values[i],
  }));
}

function additionOf(empty: Addition, memories: readonly Memory[], shape: readonly number[]): Addition {
  const size = sizeOf(shape);
  const values = new Float32Array(memories.length * size);
  memories.forEach(({ delta }, i) => values.set(delta, i * size));
  return {
    ...empty,
    entries: memories.map(({ id, edits, replaces }): EntryInfo => ({
      id,
      edits,
      ...replaces ? { replaces } : {},
    })),
    tensors: new Map([
      ["delta", { shape: [memories.length, ...shape], values }],
      ["scope", { shape: [memories.length], values: Float32Array.from(memories, ({ scope }) => scope) }],
    ]),
  };
}
