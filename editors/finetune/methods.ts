/**
 * The fine-tuning baselines as methods (guide section 10; Zhu et al. 2020; Meng et al. 2022 appendix E; Hu et al.
 * 2021; Zhang et al. 2023). All requests of a call are trained together; the model is left as it was.
 */
import type { z } from "npm:zod@4.6.7";
import type { LoadedModel } from "../../engine/models/load.ts";
import type { Model } from "../../engine/models/model.ts";
import { denseDelta, type Edit, type EditOutcome, type WeightDelta } from "../edit.ts";
import { requireKeys, requireLayers } from "../hparams.ts";
import { workBytesOf } from "../estimate.ts";
import type { Method, TargetPlan } from "../methods.ts";
import type { Recipe } from "../recipes.ts";
import { type EditRequest, tokeniseRequest, validateRequest } from "../requests.ts";
import type { EditOptions } from "../rome.ts";
import { allRoles, projectionRoles, trainTensors } from "./dense.ts";
import {
  type AdaLoraHparams,
  adaLoraSchema,
  type FineTuningHparams,
  type FtFullHparams,
  ftFullSchema,
  type FtHparams,
  ftLHistoricSchema,
  ftLSchema,
  ftMSchema,
  ftSchema,
  type LoraHparams,
  loraSchema,
  parseFineTuning,
} from "./hparams.ts";
import { adaLora, adaLoraStart, lora, loraStart, type LowRankAdaptation, targetMaps } from "./lora.ts";
import { requireMemory, type Trained, trainedFactors, trainedTensors } from "./memory.ts";
import { ftRecipe, loraRecipe } from "./recipes.ts";
import { type Adaptation, type Example, type Objective, train, type Training } from "./train.ts";

/** How one method makes its adaptation of a model. */
interface Kind<H extends FineTuningHparams> {
  name: string;
  summary: string;
  schema: z.ZodObject;
  recipe(model: LoadedModel): Recipe;
  /** What {@link adapt} will hold. */
  trains(model: Model, hparams: H): Trained;
  /** @param updates how many there will be at most, over all batches */
  adapt(
    model: Model,
    hparams: H,
    how: { seed: number; updates: number },
  ): { adaptation: Adaptation & Disposable; read(): Promise<WeightDelta[]> };
}

function method<H extends FineTuningHparams>(kind: Kind<H>): Method<H> {
  const { name, summary, schema, recipe } = kind;
  return {
    name,
    summary,
    recipe,
    parse: (values, source) => parseFineTuning(schema, values, source) as { hparams: H; unknown: string[] },
    requireKeys: (keys) => requireKeys(name, schema, keys),
    statistics: () => [],
    prepare: () => Promise.resolve(),
    plan: (model, requests, hparams) => planOf(model, requests, kind, hparams),
    run: (model, requests, options) => fineTune(model, requests, kind, options),
  };
}

function planOf<H extends FineTuningHparams>(
  model: Model,
  requests: readonly EditRequest[],
  kind: Kind<H>,
  hparams: H,
): TargetPlan {
  requireLayers(model, hparams.layers);
  const { layers, num_steps: steps, batch_size } = hparams;
  const targets = requests.map((request) => {
    const { prompt, target } = tokeniseRequest(model, validateRequest(request));
    // All rows are computed at every step, from the trained layer on.
    return { prompts: [{ ...prompt, subjectLast: 0 }], target, kl: { ...prompt, subjectLast: 0 } };
  });
  const { deviceBytes, hostBytes } = kind.trains(model, hparams);
  return {
    ...{ layer: layers.length ? Math.min(...layers) : 0, steps, targets },
    training: { together: batch_size, deviceBytes, hostBytes },
  };
}

async function fineTune<H extends FineTuningHparams>(
  model: LoadedModel,
  requests: readonly EditRequest[],
  kind: Kind<H>,
  { hparams, seed = 0, onProgress }: EditOptions<H>,
): Promise<Edit> {
  requireLayers(model, hparams.layers);
  const valid = requests.map((r, i) =>
    validateRequest(r, requests.length > 1 ? `Request ${i + 1}` : undefined)
  );
  const examples = valid.map((request) => {
    const { prompt: { ids }, target } = tokeniseRequest(model, request);
    return { prompt: ids, target };
  });
  const plan = planOf(model, valid, kind, hparams);
  requireMemory(model, kind.name, kind.trains(model, hparams), workBytesOf(model.dims, plan));
  const updates = hparams.num_steps * Math.ceil(valid.length / hparams.batch_size);
  const { adaptation, read } = kind.adapt(model, hparams, { seed, updates });
  using _done = adaptation;
  const { stop_loss: threshold, ...how } = hparams;
  const training = await train(model, examples, adaptation, { ...how, threshold });
  const deltas = await read();
  onProgress?.(valid.length, valid.length);
  const outcomes = outcomesOf(examples, training, hparams);
  return { method: kind.name, hparams: { ...hparams }, requests: valid, deltas, outcomes };
}

function outcomesOf(
  examples: readonly Example[],
  { steps, losses, penalties }: Training,
  { lr, objective_optimization }: { lr: number; objective_optimization: Objective },
): EditOutcome[] {
  const mean = (row: number[]) => row.reduce((sum, x) => sum + x, 0) / row.length;
  const first = mean(losses[0]), last = mean(losses.at(-1)!);
  const diverged = last > first
    ? [`The loss rose from ${first.toFixed(2)} to ${last.toFixed(2)}: the learning rate of ${lr} is too high`]
    : [];
  return examples.map(({ target }, e) => ({
    steps,
    losses: losses.map((row, step) => ({ nll: row[e], kl: 0, wd: penalties[step] })),
    warnings: [...diverged, ...lastPositionWarning(target, objective_optimization)],
  }));
}

function lastPositionWarning(target: readonly number[], objective: Objective): string[] {
  const distinct = new Set(target).size;
  if (objective === "target_new" || distinct === 1) return [];
  return [
    `The historic objective asks one position for all ${target.length} tokens of the target, so its loss stays ` +
    `above ${Math.log(distinct).toFixed(2)}; ft-l and ft-m have the right one`,
  ];
}

/** The trained tensors' changes as the edit's deltas. */
function densely(model: Model, roles: readonly string[], radius?: number) {
  const adaptation = trainTensors(model, roles, radius);
  const read = async () => (await adaptation.changes()).map(({ role, values }) => denseDelta(role, values));
  return { adaptation, read };
}

function ft(name: string, summary: string, schema: z.ZodObject): Method<FtHparams> {
  const kind = "norm_constraint" in schema.shape && !schema.shape.norm_constraint.safeParse(false).success
    ? "constrained"
    : "free";
  return method<FtHparams>({
    name,
    summary,
    schema,
    recipe: ({ config }) => ftRecipe(config, kind),
    trains: (model, { layers }) => trainedTensors(model, projectionRoles(model, layers)),
    adapt: (model, { layers, norm_constraint: radius }) =>
      densely(model, projectionRoles(model, layers), radius === false ? undefined : radius),
  });
}

const ftFull = method<FtFullHparams>({
  name: "ft-full",
  summary: "Full fine-tuning: every weight of the model, or of the layers given",
  schema: ftFullSchema,
  recipe: () => ({ hparams: {}, source: "All layers", known: true }),
  trains: (model, { layers }) => trainedTensors(model, rolesOf(model, layers)),
  adapt: (model, { layers }) => densely(model, rolesOf(model, layers)),
});

/** Every tensor of the layers, of the whole model where none are given. */
function rolesOf(model: Model, layers: readonly number[]): string[] {
  const of = (role: string) => Number(/^layer\.(\d+)\./.exec(role)?.[1] ?? NaN);
  return allRoles(model).filter((role) => !layers.length || layers.includes(of(role)));
}

function adapters<H extends LoraHparams | AdaLoraHparams>(
  name: "lora" | "adalora",
  summary: string,
  schema: z.ZodObject,
  make: (model: Model, hparams: H, how: { seed: number; updates: number }) => LowRankAdaptation,
): Method<H> {
  return method<H>({
    name,
    summary,
    schema,
    recipe: ({ config }) => loraRecipe(config, name),
    trains(model, hparams) {
      const maps = targetMaps(model, hparams.target_modules, hparams.layers).map(({ role }) => role);
      const [rank, kept] = "rank" in hparams ? [hparams.rank, 0] : [hparams.init_r, 2];
      return trainedFactors(model, maps, rank, kept);
    },
    adapt(model, hparams, how) {
      const adaptation = make(model, hparams, how);
      const read = async () => (await adaptation.deltas()).map((delta) => ({ ...delta, shared: true }));
      return { adaptation, read };
    },
  });
}

/** All of them, recommended ones first. */
export const FINE_TUNING: readonly Method[] = [
  ft("ft-m", "FT-M (EasyEdit): fine-tunes one layer's MLP projection on the target's tokens", ftMSchema),
  ft("ft-l", "FT-L (Zhu et al. 2020): as FT-M, within an L∞ ball around the weights", ftLSchema),
  ft("ft", "FT (Meng et al. 2022): as released, with all target tokens at the prompt's end", ftSchema),
  ft("ft-l-historic", "FT-L (Meng et al. 2022): as FT, within an L∞ ball", ftLHistoricSchema),
  ftFull,
  adapters(
    "lora",
    "LoRA (Hu et al. 2021): low-rank adapters",
    loraSchema,
    (model, hparams: LoraHparams, { seed }) => {
      const maps = targetMaps(model, hparams.target_modules, hparams.layers);
      return lora(model, loraStart(maps, hparams.rank, seed), hparams);
    },
  ),
  adapters(
    "adalora",
    "AdaLoRA (Zhang et al. 2023): low-rank adapters whose ranks go where they matter",
    adaLoraSchema,
    (model, hparams: AdaLoraHparams, { seed, updates }) => {
      const maps = targetMaps(model, hparams.target_modules, hparams.layers);
      return adaLora(model, adaLoraStart(maps, hparams.init_r, seed), { ...hparams, num_steps: updates });
    },
  ),
];
