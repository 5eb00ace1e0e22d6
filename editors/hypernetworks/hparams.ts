/**
 * Hyper-parameters of trained editors, under the names of the authors' configuration files where those have one
 * (eric-mitchell/mend; memory-and-meta guide section 2.1), checked and completed.
 */
import { z } from "npm:zod@4.6.7";

const layers = z.array(z.number().int().min(0)).min(1);

/** What every training has. */
const every = {
  /** Layers that are edited: of KE all maps, by default of all layers; of the others the MLPs, of the last three. */
  layers: layers.optional(),
  /** Learning rate. */
  lr: z.number().positive(),
  /** Edits that one edited model holds: train with as many as will be made together. */
  n_edits: z.number().int().min(1).default(1),
  /** Groups of edits a step: the gradients accumulated before an update. */
  accumulate_bs: z.number().int().min(1).default(10),
  /** Steps at most. */
  max_steps: z.number().int().min(1).default(100_000),
  /** Steps from one validation to the next. */
  val_interval: z.number().int().min(1).default(500),
  /** Groups of edits a validation during training. */
  val_steps: z.number().int().min(1).default(500),
  /** Steps without a new best validation loss after which training ends. */
  early_stop_patience: z.number().int().min(1).default(2000),
};

/** What those trained by MEND's loss have. */
const common = {
  ...every,
  /** Steps over which the learning rate falls to nothing; 0 keeps it. */
  lr_decay: z.number().int().min(0).default(0),
  /** Weight of the outer text's loss. */
  cedit: z.number().positive().default(0.1),
  /** Weight of the KL divergence at the unrelated text. */
  cloc: z.number().min(0).default(1),
  /** The joint norm of the gradients at most. */
  grad_clip: z.number().positive().default(100),
};

export const mendTrainSchema = z.object({
  ...common,
  lr: common.lr.default(1e-6),
  /** Rank of the network's blocks at most. */
  rank: z.number().int().min(1).default(1920),
  /** Where the learned step of each map starts. */
  edit_lr: z.number().positive().default(1e-4),
  /** Learning rate of those; what the released code really has (guide section 2.6). */
  lr_lr: z.number().positive().default(1e-6),
});

/** MALMEN's, under the names of the others (ChenmienTan/malmen; guide section 4). */
export const malmenTrainSchema = z.object({
  ...common,
  lr: common.lr.default(1e-5),
  cedit: common.cedit.default(1),
  grad_clip: common.grad_clip.default(1),
  n_edits: common.n_edits.default(100),
  accumulate_bs: common.accumulate_bs.default(1),
  val_steps: common.val_steps.default(2),
  /** Rank of the network's blocks at most. */
  rank: z.number().int().min(1).default(1920),
  /** Where the learned step of each map starts. */
  edit_lr: z.number().positive().default(1e-6),
  /** Learning rate of those and of the ridges. */
  lr_lr: z.number().positive().default(1e-5),
});

/** The KE variant of published tables (eric-mitchell/mend's EFK; guide section 3.6). */
export const efkTrainSchema = z.object({
  ...common,
  lr: common.lr.default(1e-5),
  /** The network reads one edit at a time. */
  n_edits: z.literal(1).default(1),
  /** Width of the LSTM in each direction. */
  lstm: z.number().int().min(1).default(512),
  /** Width of what it makes of an edit. */
  condition: z.number().int().min(1).default(768),
  /** Width between a head's two maps. */
  hidden: z.number().int().min(1).default(512),
  /** The gates' upper bound. */
  max_scale: z.number().positive().default(1),
});

/** KE's own (nicola-decao/KnowledgeEditor, the training of BART with the KL constraint; guide section 3). */
export const keTrainSchema = z.object({
  ...every,
  lr: every.lr.default(3e-4),
  /** Learning rate of the multiplier α. */
  lr_alpha: z.number().positive().default(0.1),
  /** Steps over which both rates rise from nothing; from there they fall to nothing at the last step. */
  warmup_updates: z.number().int().min(0).default(1000),
  max_steps: every.max_steps.default(200_000),
  /** The network reads one edit at a time. */
  n_edits: z.literal(1).default(1),
  accumulate_bs: every.accumulate_bs.default(4),
  /** Label smoothing. */
  eps: z.number().positive().max(0.5).default(0.1),
  /** Where the bound on the KL divergence starts, and what it does not fall below. */
  margin_kl_max: z.number().positive().default(1e-3),
  margin_kl_min: z.number().positive().default(1e-5),
  /** Width of the LSTM in each direction. */
  lstm: z.number().int().min(1).default(128),
  /** Width of what it makes of an edit. */
  condition: z.number().int().min(1).default(1024),
  /** Width between a head's two maps. */
  hidden: z.number().int().min(1).default(128),
  /** The gates' upper bound. */
  max_scale: z.number().positive().default(1),
});

export type KeTraining = z.infer<typeof keTrainSchema>;
export type EfkTraining = z.infer<typeof efkTrainSchema>;
export type MalmenTraining = z.infer<typeof malmenTrainSchema>;
export type MendTraining = z.infer<typeof mendTrainSchema>;
/** Of those trained by MEND's loss. */
export type WeightedTraining = Pick<MendTraining, keyof typeof common>;
/** Of all. */
export type CommonTraining = Pick<MendTraining, keyof typeof every>;
