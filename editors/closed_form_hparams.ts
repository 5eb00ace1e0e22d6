/**
 * Hyper-parameters of MEMIT and its kin under the names that the authors' JSON and EasyEdit's YAML files use (guide
 * sections 5 to 8).
 */
import { z } from "npm:zod@4.6.7";
import { mom2_jitter, regulariserFields } from "./hparams.ts";

/** What all of them have. */
const common = {
  /** Layers to edit, ascending; targets are optimised at the last. */
  layers: z.array(z.number().int().min(0)).min(1)
    .refine((layers) => layers.every((l, i) => i === 0 || l > layers[i - 1]), "layers must ascend"),
  /** Which token's key is edited. */
  fact_token: z.literal("subject_last").default("subject_last"),
  /** Forward passes of the target optimisation; one update fewer. */
  v_num_grad_steps: z.number().int().min(1).max(1000).default(25),
  /** Adam's learning rate. */
  v_lr: z.number().positive().default(0.5),
  /** Multiplies ‖δ‖/‖v0‖². */
  v_weight_decay: z.number().min(0).default(0.5),
  /** ‖δ‖ stays below this many ‖v0‖. */
  clamp_norm_factor: z.number().positive().default(0.75),
  /** Weight of KL(p_δ ‖ p_0) at "{subject}". */
  kl_factor: z.number().min(0).default(0.0625),
  /** C is always used; the files carry the key all the same. */
  mom2_adjustment: z.literal(true).optional(),
  /** [total tokens, how many] of the context templates; each pair is a group of its own. */
  context_template_length_params: z.array(z.tuple([z.number().int().min(1), z.number().int().min(0)]))
    .default([[10, 5]]),
  /** Device memory of targets optimised together, MiB. */
  work_mib: z.number().positive().default(1024),
  ...regulariserFields,
};

/** λ of λC + KKᵀ. */
const mom2_update_weight = z.number().positive();

/** MEMIT and MEMIT_seq. */
export const memitSchema = z.object({ ...common, mom2_update_weight, mom2_jitter });
export type MemitHparams = z.infer<typeof memitSchema>;

/** PMET. */
export const pmetSchema = z.object({
  ...common,
  mom2_update_weight,
  mom2_jitter,
  /** Multiplies the NLL. */
  nll_loss_factor: z.number().positive().default(1),
  v_num_grad_steps: common.v_num_grad_steps.default(30),
  v_lr: z.number().positive().default(0.2),
  kl_factor: z.number().min(0).default(1),
});
export type PmetHparams = z.infer<typeof pmetSchema>;

/** EMMET with its constraint met. */
export const emmetSchema = z.object({
  ...common,
  mom2_jitter,
  /** Added to the diagonal of KᵀC⁻¹K, relative to its mean: keys that nearly repeat each other stay solvable. */
  emmet_jitter: z.number().min(0).max(1).default(1e-6),
});
export type EmmetHparams = z.infer<typeof emmetSchema>;

/** EMMET as released: with n > 1 it is MEMIT with λ = mom2_update_weight · emmet_lambda. */
export const emmetReleasedSchema = z.object({
  ...common,
  mom2_update_weight,
  mom2_jitter,
  emmet_lambda: z.number().min(0).default(0.1),
});
export type EmmetReleasedHparams = z.infer<typeof emmetReleasedSchema>;

/** AlphaEdit. */
export const alphaEditSchema = z.object({
  ...common,
  /** Eigenvectors of C with an eigenvalue below this are written in; absolute, in the units of E[kkᵀ]. */
  nullspace_threshold: z.number().positive().default(2e-2),
  /** λ of KKᵀ + λI. */
  L2: z.number().positive().default(10),
});
export type AlphaEditHparams = z.infer<typeof alphaEditSchema>;

/** What the common parts of these methods read. */
export type ClosedFormHparams = Omit<MemitHparams, "mom2_update_weight" | "mom2_jitter">;
