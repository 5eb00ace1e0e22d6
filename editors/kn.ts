/**
 * Editing by knowledge neurons. `kn` is the authors' method (Dai et al. 2022, "Knowledge Neurons in
 * Pretrained Transformers", section 5.1, and their code): find the neurons of the true fact by integrated
 * gradients over several prompts, then rewrite their value slots on matched norms,
 *
 *   W_i ← W_i − λ1·‖W_i‖·e(t)/‖e(t)‖ + λ2·‖W_i‖·e(t')/‖e(t')‖
 *
 * `kn-easyedit` is what editing tables call KN: EasyEdit's descendant of EleutherAI's code, with the coarse
 * set of one prompt, neurons before the activation function, and embeddings added as they are (guide section
 * 11.2).
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../engine/io/errors.ts";
import type { ModelConfig } from "../engine/io/config.ts";
import { generate } from "../engine/models/generate.ts";
import type { Model } from "../engine/models/model.ts";
import { type ContextLengths, contextPlan, contexts } from "./contexts.ts";
import { applyDeltas, type Edit, type EditOutcome, type WeightDelta } from "./edit.ts";
import { type Hparams, parseHparams, requireKeys } from "./hparams.ts";
import type { Method } from "./methods.ts";
import { attributionBytes } from "./neurons/attribution.ts";
import { findEasyEdit, findNeurons } from "./neurons/find.ts";
import { predictWith } from "./neurons/interventions.ts";
import { shiftSlots, updateSlots, wordEmbeddings } from "./neurons/slots.ts";
import type { Neuron } from "./neurons/select.ts";
import { type EditRequest, fill, requireRoom, tokeniseTarget, validateRequest } from "./requests.ts";
import type { EditOptions } from "./rome.ts";

const layers = z.array(z.number().int().min(0)).min(1);
const steps = z.number().int().min(1).max(1000).default(20);

/** The authors' method. */
export const knSchema = z.object({
  /** Layers whose neurons may be changed; all of them in the recipe. */
  layers,
  /** Points of the integral. */
  steps,
  /** Share of the largest attribution from which on a neuron is in a prompt's coarse set. */
  threshold: z.number().min(0).max(1).default(0.2),
  /** Share of the prompts that a neuron must be in, to begin with. */
  share: z.number().min(0).max(1).default(0.7),
  /** And never in fewer prompts than this. */
  min_prompts: z.number().int().min(1).default(3),
  /** How much of the old answer's embedding is taken out of a slot, and how much of the new one's comes in. */
  norm_lambda1: z.number().min(0).default(1),
  norm_lambda2: z.number().min(0).default(8),
  /**
   * [total tokens, how many] of the contexts before the prompt. The authors have a fact's paraphrases; an
   * edit request brings one prompt, so texts sampled from the model make several of it.
   */
  context_template_length_params: z.array(z.tuple([z.number().int().min(1), z.number().int().min(0)]))
    .default([[5, 5], [10, 4]]),
});

/** EasyEdit's method, under the names of its files. */
export const knEasyEditSchema = z.object({
  layers,
  steps,
  adaptive_threshold: z.number().min(0).max(1).default(0.2),
  /** Without effect as long as `refine` is false or there is one prompt. */
  p: z.number().min(0).max(1).default(0.4),
  refine: z.boolean().default(false),
});

export type KnHparams = z.infer<typeof knSchema>;
export type KnEasyEditHparams = z.infer<typeof knEasyEditSchema>;

/** A request as token ids. */
interface Asked {
  text: string;
  /** Of the bare prompt first, then after each context. */
  prompts: number[][];
}

/** What an edit of one request is made of. */
interface Made {
  neurons: Neuron[];
  deltas: WeightDelta[];
  warnings: string[];
}

/** Both methods: one request after another, each on the model with the earlier ones applied. */
async function edit<H extends Hparams & Record<string, unknown>>(
  model: Model,
  requests: readonly EditRequest[],
  { hparams, onProgress }: EditOptions<H>,
  method: string,
  texts: readonly string[],
  make: (
    request: EditRequest,
    asked: Asked,
    onProgress: (done: number, total: number) => void,
  ) => Promise<Made>,
): Promise<Edit> {
  const valid = requests.map((r, i) =>
    validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
  );
  const deltas: WeightDelta[] = [], outcomes: EditOutcome[] = [];
  using applied = new DisposableStack();
  for (const [i, request] of valid.entries()) {
    const asked = tokenise(model, request, texts);
    // A bar of thousandths: attributing is nearly all of a request's work.
    const made = await make(request, asked, (done, all) => {
      onProgress?.(Math.floor(1000 * (i + done / all)), 1000 * valid.length);
    });
    applied.use(applyDeltas(model, made.deltas));
    deltas.push(...made.deltas);
    const answer =
      tokeniseTarget(model.tokenizer, { text: asked.text, ids: asked.prompts[0] }, request.target)[0];
    const [{ probability }] = await predictWith(model, [{ ids: asked.prompts[0], answer }], [], 1);
    // There is no loss that is made small; this is what is left to say the target's first token.
    const losses = [{ nll: -Math.log(probability), kl: 0, wd: 0 }];
    outcomes.push({ steps: 0, losses, warnings: made.warnings });
    onProgress?.(1000 * (i + 1), 1000 * valid.length);
  }
  if (deltas.length === 0) {
    throw new InputError(`${outcomes[0].warnings.at(-1)}: ${method} changes nothing`, {
      hint: method === "kn" ? "Smaller values of threshold and min_prompts find more neurons" : undefined,
    });
  }
  return { method, hparams: { ...hparams }, requests: valid, deltas, outcomes };
}

function tokenise(
  { tokenizer, dims }: Model,
  { prompt, subject }: EditRequest,
  texts: readonly string[],
): Asked {
  const prompts = texts.map((context) => tokenizer.encode(fill(prompt, subject, context).text));
  const longest = Math.max(...prompts.map((ids) => ids.length));
  requireRoom(longest, dims, `The prompt "${prompt}" with a context`);
  return { text: fill(prompt, subject).text, prompts };
}

async function authors(
  model: Model,
  requests: readonly EditRequest[],
  options: EditOptions<KnHparams>,
): Promise<Edit> {
  const { hparams, seed = 0 } = options;
  const texts = await contexts(model, hparams.context_template_length_params, seed);
  return await edit(model, requests, options, "kn", texts, async (request, asked, onProgress) => {
    const warnings: string[] = [];
    const first = (text: string) => {
      const ids = tokeniseTarget(model.tokenizer, { text: asked.text, ids: asked.prompts[0] }, text);
      const token = JSON.stringify(model.tokenizer.token(ids[0]));
      if (ids.length > 1) {
        warnings.push(`Of the ${ids.length} tokens of "${text.trim()}" only the first, ${token}, counts`);
      }
      return ids[0];
    };
    const to = first(request.target);
    const [{ says }] = await predictWith(model, [{ ids: asked.prompts[0], answer: to }], [], 1);
    const from = request.true === undefined ? says : first(request.true);
    if (from !== says) {
      const token = JSON.stringify(model.tokenizer.token(says));
      warnings.push(
        `The model says ${token}, not "${request.true!.trim()}": the authors leave such facts out`,
      );
    }
    if (from === to) warnings.push("Both objects begin with the same token: no slot can tell them apart");
    const { min_prompts: minPrompts } = hparams;
    const found = await findNeurons(model, [{ prompts: asked.prompts, answer: from }], {
      ...hparams,
      minPrompts,
      onProgress,
    });
    const neurons = within(found.facts[0].refined, hparams);
    if (neurons.length === 0) {
      warnings.push(
        `No neuron is in the coarse sets of ${minPrompts} of the ${asked.prompts.length} prompts`,
      );
      return { neurons, deltas: [], warnings };
    }
    return { neurons, deltas: await updateSlots(model, neurons, { from, to }, hparams), warnings };
  });
}

async function easyEdit(
  model: Model,
  requests: readonly EditRequest[],
  options: EditOptions<KnEasyEditHparams>,
): Promise<Edit> {
  const { hparams } = options;
  return await edit(model, requests, options, "kn-easyedit", [""], async (request, asked, onProgress) => {
    const warnings: string[] = [];
    const [prompt] = asked.prompts;
    // EasyEdit encodes both answers by themselves: no leading space, and BOS where the tokenizer adds it.
    const target = model.tokenizer.encode(request.target.trim());
    let truth: number[];
    if (request.true === undefined) {
      const [{ says }] = await predictWith(model, [{ ids: prompt, answer: target[0] }], [], 1);
      truth = [says];
      warnings.push("There is no true object: the neurons are those of the model's own next token");
    } else truth = model.tokenizer.encode(request.true.trim());
    const { refined } = await findEasyEdit(model, asked.prompts, truth, { ...hparams, onProgress });
    const neurons = within(refined, hparams);
    if (neurons.length === 0) warnings.push("No neuron has a positive attribution");
    const deltas = await easyEditSlots(model, neurons, prompt, target);
    return { neurons, deltas, warnings };
  });
}

/**
 * EasyEdit's change, the same for all slots: minus the embeddings of what the model says, as many tokens as
 * the target has and a single one twice, plus the embeddings of the target.
 */
export async function easyEditSlots(
  model: Model,
  neurons: readonly Neuron[],
  prompt: readonly number[],
  target: readonly number[],
): Promise<WeightDelta[]> {
  if (neurons.length === 0) return [];
  const [says] = await generate(model, [prompt], { maxTokens: target.length, stop: [] });
  const embeddings = await wordEmbeddings(model, [...says, ...target]);
  const change = new Float32Array(model.dims.width);
  embeddings.forEach((e, i) => {
    const factor = i >= says.length ? 1 : says.length === 1 ? -2 : -1;
    e.forEach((x, d) => change[d] += factor * x);
  });
  return shiftSlots(model, neurons, change, neurons.map(() => 1));
}

function within(neurons: readonly Neuron[], { layers }: Hparams): Neuron[] {
  return neurons.filter(({ layer }) => layers.includes(layer));
}

/** What the two methods have in common as entries of the table of methods. */
function method<S extends z.ZodObject, H extends z.infer<S> & Hparams & { steps: number }>(
  schema: S,
  entry: Pick<Method<H>, "name" | "summary" | "prepare" | "run"> & {
    /** Settings by the model's family, and where they come from. */
    settings(type: ModelConfig["type"]): { steps: number; source: string };
    contexts(hparams: H): ContextLengths;
  },
): Method<H> {
  const { name, settings, contexts, ...rest } = entry;
  return {
    name,
    ...rest,
    recipe({ dims, config }) {
      const { steps, source } = settings(config.type);
      return {
        hparams: { layers: Array.from({ length: dims.layers }, (_, n) => n), steps },
        source,
        known: true,
      };
    },
    parse: (values, source) => parseHparams(schema, values, source) as { hparams: H; unknown: string[] },
    requireKeys: (keys) => requireKeys(name, schema, keys),
    statistics: () => [],
    plan(model, requests, hparams) {
      const asked = requests.map((request) => tokenise(model, request, contextPlan(contexts(hparams))));
      const bytes = asked.map(({ prompts }) => attributionBytes(model, prompts, hparams.steps));
      return {
        // One row a prompt for every point of every layer; half of the layers lie above a layer on average.
        layer: 0,
        steps: Math.ceil(hparams.steps * model.dims.layers / 2),
        targets: asked.map(({ prompts, text }, i) => ({
          prompts: prompts.map((ids) => ({ text, ids, subjectLast: ids.length - 1 })),
          target: tokeniseTarget(model.tokenizer, { text, ids: prompts[0] }, requests[i].target).slice(0, 1),
          kl: { text, ids: prompts[0].slice(0, 1), subjectLast: 0 },
        })),
        workBytes: Math.max(...bytes),
      };
    },
  };
}

/** The authors' knowledge neurons. */
export const kn: Method<KnHparams> = method(knSchema, {
  name: "kn",
  summary: "Knowledge neurons (Dai et al. 2022): the authors' attribution and norm-matched slots",
  settings: () => ({ steps: 20, source: "The authors' settings, the same for all models" }),
  contexts: (h) => h.context_template_length_params,
  prepare: async (model, h, seed) => void await contexts(model, h.context_template_length_params, seed),
  run: authors,
});

/** What editing tables call KN. */
export const knEasyEdit: Method<KnEasyEditHparams> = method(knEasyEditSchema, {
  name: "kn-easyedit",
  summary: "KN as editing tables have it (EasyEdit): coarse set of one prompt, raw embeddings",
  settings: (type) =>
    type === "gpt2"
      ? { steps: 20, source: "EasyEdit's settings for GPT-2 XL" }
      : { steps: 1, source: "EasyEdit's settings for LLaMA-like models: one step, at zero" },
  contexts: () => [],
  prepare: () => Promise.resolve(),
  run: easyEdit,
});
