/**
 * Hyper-parameters of fine-tuning under the names that kmeng01/rome's, EasyEdit's and peft's files use. The name
 * of a method says which objective and which constraint it has; a file that says otherwise is refused.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";
import { parseHparams } from "../hparams.ts";

const layer = z.number().int().min(0);

/** What all of them have. */
const common = {
  /** Updates a batch at most. */
  num_steps: z.number().int().min(1).max(10000).default(25),
  /** Adam's learning rate. */
  lr: z.number().positive().default(5e-4),
  /** L2 as torch.optim.Adam does it: added to the gradient. */
  weight_decay: z.number().min(0).default(0),
  /** Requests an update; the rest follow one batch after another. */
  batch_size: z.number().int().min(1).default(128),
  /** Mean loss below which training ends, and below which a batch gets no update; 0 trains to the last step. */
  stop_loss: z.number().min(0).default(1e-2),
};

const oneLayer = { layers: z.array(layer).min(1) };
const anyLayers = {
  /** Layers to train; none means all of the model. */
  layers: z.array(layer).default([]),
};

const lastPosition = { objective_optimization: z.literal("prompt_last").default("prompt_last") };
const teacherForced = { objective_optimization: z.literal("target_new").default("target_new") };
const unconstrained = { norm_constraint: z.literal(false).default(false) };
const constrained = {
  /** ε: no weight moves further than this from where it was. */
  norm_constraint: z.number().positive(),
};

const adapters = {
  ...common,
  ...anyLayers,
  ...teacherForced,
  lr: z.number().positive().default(5e-3),
  num_steps: common.num_steps.default(70),
  /** Names of the modules to adapt, as the checkpoint has them. */
  target_modules: z.array(z.string()).min(1),
  lora_alpha: z.number().positive().default(32),
};

export const ftSchema = z.object({ ...oneLayer, ...common, ...lastPosition, ...unconstrained });
export const ftLHistoricSchema = z.object({ ...oneLayer, ...common, ...lastPosition, ...constrained });
export const ftLSchema = z.object({ ...oneLayer, ...common, ...teacherForced, ...constrained });
export const ftMSchema = z.object({ ...oneLayer, ...common, ...teacherForced, ...unconstrained });
export const ftFullSchema = z.object({
  ...anyLayers,
  ...common,
  ...teacherForced,
  lr: z.number().positive().default(5e-5),
});
export const loraSchema = z.object({
  ...adapters,
  lora_type: z.literal("lora").default("lora"),
  rank: z.number().int().min(1).default(8),
});
export const adaLoraSchema = z.object({
  ...adapters,
  /** The schedule runs to its end. */
  stop_loss: z.literal(0).default(0),
  lora_type: z.literal("adalora").default("adalora"),
  /** Ranks a matrix at the start. */
  init_r: z.number().int().min(1).default(12),
  /** Ranks a matrix at the end, on average. */
  target_r: z.number().int().min(1).default(8),
  /** Steps before ranks go. */
  tinit: z.number().int().min(0).default(10),
  /** Steps after the last ranks went. */
  tfinal: z.number().int().min(0).default(20),
  /** Steps from one cut to the next. */
  deltaT: z.number().int().min(1).default(5),
  /** Smoothing of the sensitivities. */
  beta1: z.number().gt(0).lt(1).default(0.85),
  /** Smoothing of their uncertainties. */
  beta2: z.number().gt(0).lt(1).default(0.85),
  /** Weight of ‖PᵀP − I‖ + ‖QᵀQ − I‖. */
  orth_reg_weight: z.number().min(0).default(0.5),
});

export type FtHparams =
  | z.infer<typeof ftSchema>
  | z.infer<typeof ftLHistoricSchema>
  | z.infer<typeof ftLSchema>
  | z.infer<typeof ftMSchema>;
export type FtFullHparams = z.infer<typeof ftFullSchema>;
export type LoraHparams = z.infer<typeof loraSchema>;
export type AdaLoraHparams = z.infer<typeof adaLoraSchema>;
export type FineTuningHparams = FtHparams | FtFullHparams | LoraHparams | AdaLoraHparams;

/** Keys of the reference's files that its code reads and does not use. */
const UNUSED = ["kl_factor"];

/**
 * Completes and checks them.
 * @throws {InputError} naming the key, or a schedule of AdaLoRA that leaves no step for cutting
 */
export function parseFineTuning<T extends z.ZodObject>(
  schema: T,
  values: Record<string, unknown>,
  source: string,
): { hparams: z.infer<T>; unknown: string[] } {
  const { hparams, unknown } = parseHparams(schema, values, source);
  const { tinit, tfinal, num_steps, init_r, target_r } = hparams as Partial<AdaLoraHparams>;
  if (tinit !== undefined && tinit >= num_steps! - tfinal!) {
    throw new InputError(
      `${source} leaves AdaLoRA no step to cut ranks in: tinit ${tinit} and tfinal ${tfinal} of ${num_steps} steps`,
      { hint: "tinit + tfinal must be less than num_steps" },
    );
  }
  if (init_r !== undefined && target_r! > init_r) {
    throw new InputError(`${source} has a target_r of ${target_r} above its init_r of ${init_r}`);
  }
  return { hparams, unknown: unknown.filter((key) => !UNUSED.includes(key)) };
}
