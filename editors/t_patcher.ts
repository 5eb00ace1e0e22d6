/**
 * T-Patcher (Huang et al. 2023, "Transformer-Patcher: one mistake worth one neuron"; guide section 7). Every token
 * that the model gets wrong becomes a neuron of the last feed-forward layer, a patch: key k, bias b and value
 * v = v₀ ⊙ α. With q the layer's input at the mistake the patch starts at k = q/‖q‖², b = 0, so at an activation
 * of 1, and is trained on
 *
 *   L = l_e + l_a + λ·l_m
 *   l_e  −log p of the target's tokens, mean
 *   l_a  mean of the largest exp(−a), a the patches' pre-activations at their own mistakes
 *   l_m  mean of the largest exp(m − β), and of the largest exp(m − a + γ), m those on a memory of other inputs
 *
 * The memory is what the layer reads in ordinary text and, growing from edit to edit, in the edits before: at all
 * tokens of prompt and target but the first. (The authors' encoder–decoder reads the prompt elsewhere, and keeps
 * what its decoder reads at the target less the first and last token, of which a decoder's short target leaves
 * nothing.) All below the last layer is frozen: its input and the stream at the target's tokens are read once, and
 * a step is a few neurons, the final norm and the head.
 *
 * The authors train on eight copies of the example, which differ by dropout only. Without dropout they are equal;
 * what is left of them is that the 5 and the 1000 largest of all copies' losses are 1 and 125 of one.
 */
import { z } from "npm:zod@4.6.7";
import type { Addition } from "../engine/models/additions/addition.ts";
import type { Model } from "../engine/models/model.ts";
import { InputError } from "../engine/io/errors.ts";
import { besideMethod } from "./beside/method.ts";
import type { Edit, EditOutcome } from "./edit.ts";
import type { Example } from "./finetune/train.ts";
import type { EditMemory, MemoryPart } from "./memory.ts";
import { readMistakes } from "./tpatcher/mistakes.ts";
import { type Ordinary, ordinaryQueries } from "./tpatcher/ordinary.ts";
import { finishPatches, joinRows, newPatches, normals, type Patches, splitRows } from "./tpatcher/patches.ts";
import { trainPatches } from "./tpatcher/train.ts";

export const tPatcherSchema = z.object({
  /** The last layer. */
  layers: z.array(z.number().int().min(0)).length(1),
  /** Neurons an edit at most. */
  max_add_neuron_num: z.number().int().min(1).max(64).default(5),
  /** The patches' activation; of silu even a silent neuron would speak, so gated models have relu here. */
  activation: z.enum(["gelu", "gelu_new", "relu"]),
  /** Adam's. */
  lr: z.number().positive().default(1e-2),
  /** L2 as torch.optim.Adam does it: added to the gradient. */
  weight_decay: z.number().min(0).default(1e-2),
  /** Of the gradient's norm. */
  clip: z.number().positive().default(5),
  max_edit_step: z.number().int().min(1).max(100000).default(2000),
  /** Looks after more steps than this may end training. */
  start_val: z.number().int().min(1).default(100),
  /** Steps from one look to the next. */
  check_val_every: z.number().int().min(1).default(25),
  /** Where the validation loss falls by less than 5 % in two looks, the rate is multiplied by this. */
  lr_scheduler_factor: z.number().gt(0).max(1).default(0.5),
  /** α of a new patch. */
  amplify_con: z.number().positive().default(10),
  /** Weight of l_a. */
  alc: z.number().min(0).default(1),
  /** Weight λ of l_m: 5 for FEVER, 10 for zsRE. */
  mlc: z.number().min(0).default(10),
  /** γ: how far a patch's own activation is above those on the memory. The authors' zsRE runs had 0 and 0. */
  margin_val1: z.number().default(3),
  /** β: activations on the memory are below. */
  margin_val2: z.number().default(-3),
  /** Inputs of ordinary text in the memory: half to train on, half to validate. */
  memory_size: z.number().int().min(2).max(1e6).default(4000),
});

export type TPatcherHparams = z.infer<typeof tPatcherSchema>;

export const tPatcher = besideMethod({
  name: "t-patcher",
  summary: "T-Patcher (Huang et al. 2023): a neuron in the last layer for every wrong token",
  schema: tPatcherSchema,
  recipe: ({ config, dims }) => ({
    hparams: {
      layers: [dims.layers - 1],
      activation: config.type === "gpt2" ? "gelu_new" : "relu",
    },
    source: "The authors' settings, in the last layer" +
      (config.type === "gpt2" ? "" : "; ReLU patches beside a gated layer"),
    known: true,
  }),
  steps: ({ max_edit_step }) => max_edit_step,
  prepare: async (model, hparams, seed) => void await ordinaryQueries(model, memoryOptions(hparams, seed)),
  edit: async (model, requests, examples, options) => {
    const { hparams, seed = 0, memory } = options;
    const { layers: [layer] } = hparams, last = model.dims.layers - 1;
    if (layer !== last) {
      throw new InputError(`T-Patcher patches the last layer, not layer ${layer}`, {
        hint: `Set layers=[${last}]`,
      });
    }
    const ordinary = await ordinaryQueries(model, memoryOptions(hparams, seed));
    const made = await editTPatcher(model, examples, { hparams, seed, ordinary, past: pastOf(memory) });
    if (made.additions!.length > 0) return made;
    const [{ prompt, subject, target }] = requests;
    throw new InputError(
      `The model says "${target.trim()}" after "${
        prompt.replace("{}", subject)
      }" already: there is no mistake to patch`,
    );
  },
});

const memoryOptions = ({ layers: [layer], memory_size: size }: TPatcherHparams, seed: number) => (
  { layer, size, seed }
);

/** Rows of one matrix. */
export type Queries = readonly Float32Array[];

/**
 * Patches the mistakes of examples, one after another. The model is left as it is; in a sequence each example
 * sees the patches of those before it.
 */
export async function editTPatcher(
  model: Model,
  examples: readonly Example[],
  { hparams, seed, ordinary, past }: {
    hparams: TPatcherHparams;
    seed: number;
    /** What the layer reads in ordinary text. */
    ordinary: Ordinary;
    /** What it read in earlier edits. */
    past: Queries;
  },
): Promise<Pick<Edit, "deltas" | "additions" | "outcomes" | "memory">> {
  const { layers: [layer], activation } = hparams;
  const { width } = model.dims;
  const all: Patches[] = [];
  const outcomes: EditOutcome[] = [];
  const grown: Float32Array[] = [];
  for (const [i, example] of examples.entries()) {
    const read = await readMistakes(model, layer, example, { activation, patches: all });
    if (read.mistakes.length === 0) {
      const warnings = ["The model says the target already; no patch was made"];
      outcomes.push({ steps: 0, losses: [{ nll: read.nll, kl: 0, wd: 0 }], warnings });
      continue;
    }
    const mistakes = read.mistakes.slice(0, hparams.max_add_neuron_num);
    const own = mistakes.map((t) => read.queries[t]);
    // What was said at these very places is what shall change: the fact was edited before.
    const extra = [...past, ...grown].filter((row) => !own.some((q) => areSame(row, q)));
    const fresh = newPatches(
      own,
      normals(mistakes.length * width, seed + i),
      hparams.amplify_con,
    );
    const trained = await trainPatches(model, example, { ...read, mistakes }, fresh, hparams, {
      train: [...ordinary.train, ...extra],
      validate: [...ordinary.validate, ...extra],
    });
    all.push(finishPatches(trained.patches));
    // The first token is read alike in all texts that begin with it; the authors leave it out, too.
    grown.push(...read.inputs.slice(1));
    const steps = trained.losses.length - 1, wrong = read.mistakes.length;
    const warnings = trained.took
      ? []
      : [`After ${steps} steps the model does not say the target of edit ${i + 1}`];
    if (!trained.took && wrong > mistakes.length) {
      warnings.push(
        `It gets ${wrong} tokens wrong, and max_add_neuron_num allows ${mistakes.length} patches`,
      );
    }
    outcomes.push({ steps, losses: trained.losses, warnings });
  }
  const additions = all.length ? [additionOf(layer, activation, all)] : [];
  return { deltas: [], additions, outcomes, memory: memoryOf(grown) };
}

/** The patches as slots beside the layer. */
export function additionOf(layer: number, activation: string, all: readonly Patches[]): Addition {
  const n = all.reduce((sum, { bias }) => sum + bias.length, 0);
  const join = (part: (patches: Patches) => Float32Array, shape: number[]) => {
    const rows = all.map(part);
    const values = new Float32Array(rows.reduce((sum, { length }) => sum + length, 0));
    rows.reduce((at, row) => (values.set(row, at), at + row.length), 0);
    return { shape: [n, ...shape], values };
  };
  const width = all[0].keys.length / all[0].bias.length;
  return {
    kind: "slots",
    role: `layer.${layer}.mlp.down`,
    settings: { activation, gated: false },
    entries: all.flatMap(({ bias }, edit) => Array.from(bias, () => ({ edit }))),
    tensors: new Map([
      ["keys", join(({ keys }) => keys, [width])],
      ["bias", join(({ bias }) => bias, [])],
      ["values", join(({ values }) => values, [width])],
    ]),
  };
}

/** Whether two rows are one but for roundings: what the layer reads at the end of the same text. */
function areSame(a: Float32Array, b: Float32Array): boolean {
  let difference = 0, square = 0;
  a.forEach((x, i) => {
    difference += (x - b[i]) ** 2;
    square += x ** 2;
  });
  return difference < 1e-6 * square;
}

function pastOf(memory: EditMemory | undefined): Queries {
  return (memory?.parts ?? []).flatMap((part) => part.has("queries") ? splitRows(part.get("queries")!) : []);
}

function memoryOf(queries: Queries): MemoryPart | undefined {
  return queries.length ? new Map([["queries", joinRows(queries)]]) : undefined;
}
