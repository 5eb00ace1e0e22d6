/**
 * CaliNET (Dong et al. 2022, "Calibrating factual knowledge in pretrained language models"; guide section 8). The
 * weights stay; a few slots of a feed-forward layer stand beside a late one and are trained on all facts together:
 *
 *   h' = h + FFN(LN h) + W_o act(W_i LN h)          in gated layers W_o (act(W_g LN h) ⊙ W_i LN h)
 *
 * They speak at every token, whatever the text: nothing tells them which prompts are theirs but what they were
 * trained on. Everything below the layer is computed once.
 *
 * The authors begin with random W_i and W_o, which changes the model before anything is learned (`init` "reference");
 * here W_o begins at zero. They train on ParaRel's wordings of a fact with the base's dropout; here an edit's prompt
 * stands behind texts that the model makes up, without dropout.
 */
import { z } from "npm:zod@4.6.7";
import type { Addition, EntryNumbers } from "../engine/models/additions/addition.ts";
import { slotsPart } from "../engine/models/additions/slots.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { activationOf, type Model } from "../engine/models/model.ts";
import { seededRandom } from "../engine/models/sample.ts";
import { adafactor } from "../engine/ops/adafactor.ts";
import { freeTensor, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";
import { inContexts } from "./beside/in_contexts.ts";
import { withParts } from "./beside/map_rows.ts";
import { besideMethod } from "./beside/method.ts";
import { contexts } from "./contexts.ts";
import type { Edit } from "./edit.ts";
import { type Example, type Optimiser, train } from "./finetune/train.ts";

/** Hyper-parameters, under the authors' names where they have one. */
export const calinetSchema = z.object({
  /** The authors' is the decoder's last but for `kb_layer`. */
  layers: z.array(z.number().int().min(0)).length(1),
  /** Slots; default 64 for a hundred facts and 16 at least. */
  ex_size: z.number().int().min(1).max(65536).optional(),
  /** The slots' activation; default the layer's own. */
  activation: z.enum(["gelu_new", "gelu", "silu", "relu", "quick_gelu"]).optional(),
  init: z.enum(["zero", "reference"]).default("zero"),
  /** Adafactor's, fixed. */
  lr: z.number().positive().default(1e-2),
  /** The authors take 5,000 updates, for a hundred facts in all their wordings. */
  num_steps: z.number().int().min(1).max(100000).default(500),
  /** The mean loss at which training ends. */
  stop_loss: z.number().min(0).default(0.01),
  /** Texts, a fact in one context each, an update. */
  batch_size: z.number().int().min(1).default(512),
  context_template_length_params: z.array(z.tuple([z.number().int().min(1), z.number().int().min(0)]))
    .default([[5, 3], [10, 2]]),
});

export type CalinetHparams = z.infer<typeof calinetSchema>;

/** Slots for a hundred facts. */
const SLOTS = 64;
/** Fewer are too few to learn anything. */
const FEWEST = 16;

export const calinet = besideMethod({
  name: "calinet",
  summary:
    "CaliNET (Dong et al. 2022): slots beside a late feed-forward layer, trained on all facts together",
  schema: calinetSchema,
  recipe: ({ dims }: LoadedModel) => ({
    hparams: { layers: [Math.max(0, dims.layers - 2)] },
    source: "The authors' settings with fewer steps, in the last layer but one",
    known: true,
  }),
  steps: ({ num_steps }) => num_steps,
  prepare: async (model, { context_template_length_params: lengths }, seed) =>
    void await contexts(model, lengths, seed, "words"),
  async edit(model, requests, examples, { hparams, seed = 0 }) {
    const texts = await inContexts(
      ...[model, requests, examples, hparams.context_template_length_params, seed] as const,
    );
    return await editCalinet(model, texts, { hparams, seed });
  },
});

/** Row-major matrices: W_i and W_g [slots, width], and W_oᵀ [slots, width]. */
export interface SlotNumbers {
  keys: Float32Array;
  gates?: Float32Array;
  values: Float32Array;
}

/** Slots as PyTorch's linear maps begin, uniform within ±1/√(what they read); W_o zero or like the others. */
export function newSlots(
  { count, width, gated }: { count: number; width: number; gated: boolean },
  init: CalinetHparams["init"],
  seed: number,
): SlotNumbers {
  const random = seededRandom(seed);
  const uniform = (reads: number) =>
    Float32Array.from({ length: count * width }, () => (2 * random() - 1) / Math.sqrt(reads));
  return {
    keys: uniform(width),
    ...gated ? { gates: uniform(width) } : {},
    values: init === "reference" ? uniform(count) : new Float32Array(count * width),
  };
}

/**
 * Trains slots on edits together. The model is left as it is; in a sequence the slots of earlier edits lie on it
 * and stay as they are.
 * @param texts each edit's prompt in its contexts, with the target
 */
export async function editCalinet(
  model: Model,
  texts: readonly (readonly Example[])[],
  { hparams, seed = 0, start }: {
    hparams: CalinetHparams;
    seed?: number;
    /** Slots to begin with, instead of random ones. */
    start?: SlotNumbers;
  },
): Promise<Pick<Edit, "deltas" | "additions" | "outcomes">> {
  const { layers: [layer], init, lr, num_steps, stop_loss: threshold, batch_size } = hparams;
  const { gpu, dims: { width } } = model;
  const gated = model.weights.has(`layer.${layer}.mlp.gate`);
  const kind = hparams.activation ?? activationOf(model);
  const count = hparams.ex_size ?? Math.max(FEWEST, Math.ceil(SLOTS / 100 * texts.length));
  const { keys, gates, values } = start ?? newSlots({ count, width, gated }, init, seed);

  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const matrix = (label: string, numbers: Float32Array) => own(fromHost(gpu, label, [count, width], numbers));
  const slots = {
    keys: matrix("W_i", keys),
    ...gates ? { gates: matrix("W_g", gates) } : {},
    values: matrix("W_o", values),
  };
  // The authors' slots have no biases.
  const bias = own(fromHost(gpu, "no bias", [count], new Float32Array(count)));
  const part = slotsPart(layer, { ...slots, bias }, kind);
  const examples = texts.flat();
  const { steps, losses } = await train(model, examples, {
    start: { at: "block", layer },
    parameters: Object.values(slots),
    optimiser: adafactorOptimiser,
    place: () => withParts(model, [...model.parts, part]),
  }, { objective_optimization: "target_new", num_steps, lr, weight_decay: 0, batch_size, threshold });

  const names = Object.keys(slots);
  const read = await readTensors(gpu, ...Object.values(slots)) as Float32Array[];
  const addition: Addition = {
    kind: "slots",
    role: `layer.${layer}.mlp.down`,
    settings: { activation: kind, gated },
    entries: Array.from({ length: count }, () => ({})),
    tensors: new Map<string, EntryNumbers>([
      ...names.map((name, i): [string, EntryNumbers] => [name, { shape: [count, width], values: read[i] }]),
      ["bias", { shape: [count], values: new Float32Array(count) }],
    ]),
  };
  return { deltas: [], additions: [addition], outcomes: outcomesOf(texts, losses, steps) };
}

const adafactorOptimiser: Optimiser = (param, lr, zeros) => {
  const [rows, width] = param.shape;
  const rowMoments = zeros(`row moments of ${param.label}`, [rows]);
  const columnMoments = zeros(`column moments of ${param.label}`, [width]);
  return (ctx, grad, step) => adafactor(ctx, { param, grad, rowMoments, columnMoments, step, lr });
};

/** An edit's loss is the mean over its contexts. */
function outcomesOf(
  texts: readonly (readonly Example[])[],
  losses: readonly (readonly number[])[],
  steps: number,
): Edit["outcomes"] {
  let first = 0;
  return texts.map(({ length }, i) => {
    const at = first;
    first += length;
    const mean = (row: readonly number[]) =>
      row.slice(at, at + length).reduce((sum, loss) => sum + loss, 0) / length;
    const means = losses.map((row) => ({ nll: mean(row), kl: 0, wd: 0 }));
    const warnings = means.at(-1)!.nll > means[0].nll / 2
      ? [`After ${steps} steps the loss of edit ${i + 1} has hardly fallen; more num_steps may help`]
      : [];
    return { steps, losses: means, warnings };
  });
}
