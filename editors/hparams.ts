/**
 * Hyper-parameters of the ROME family under the names that ROME's JSON and EasyEdit's YAML files use, checked
 * and completed. Unknown keys are named in a warning, not refused: those files carry keys for other tools.
 */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../engine/io/errors.ts";
import { DEFAULT_JITTER } from "./statistics.ts";

/** What every method's hyper-parameters have; the rest is the method's own. */
export interface Hparams {
  /** Layers to edit. */
  layers: number[];
}

/**
 * ρ of C + ρ·tr(C)/F·I, for all that use C⁻¹. Where units of a layer hardly ever fire, C⁻¹ blows up whatever keys have
 * there; a larger ρ holds that down (docs/closed-form.md, "Units that never fire").
 */
export const mom2_jitter = z.number().min(0).max(1).default(DEFAULT_JITTER);

/** What any closed form may take on top (guide, section 9). */
export const regulariserFields = {
  /** RECT keeps only the entries that change most relative to the weight; PRUNE holds singular values down. */
  regulariser: z.enum(["rect", "prune"]).optional(),
  /** RECT: the share of entries kept. Default 0.4, AlphaEdit's; RECT's authors have 0.2. */
  rect_keep: z.number().gt(0).max(1).optional(),
};

/** ROME, R-ROME and p-ROME. */
export const romeSchema = z.object({
  /** Layers to edit, one after another; ROME uses one. */
  layers: z.array(z.number().int().min(0)).length(1),
  /** Which token's key is edited. */
  fact_token: z.literal("subject_last").default("subject_last"),
  /** Forward passes of the target optimisation; one update fewer. */
  v_num_grad_steps: z.number().int().min(1).max(1000).default(20),
  /** Adam's learning rate. */
  v_lr: z.number().positive().default(0.5),
  /** Multiplies ‖δ‖/‖v0‖². */
  v_weight_decay: z.number().min(0).default(0.5),
  /** ‖δ‖ stays below this many ‖v0‖. */
  clamp_norm_factor: z.number().positive().default(4),
  /** Weight of KL(p_δ ‖ p_0) at "{subject}". */
  kl_factor: z.number().min(0).default(0.0625),
  /** Use C⁻¹; without it C = I, as EasyEdit ships it. */
  mom2_adjustment: z.boolean().default(true),
  mom2_jitter,
  /** [total tokens, how many] of the context templates. */
  context_template_length_params: z.array(z.tuple([z.number().int().min(1), z.number().int().min(0)]))
    .default([[5, 10], [10, 10]]),
  ...regulariserFields,
});

export type RomeHparams = z.infer<typeof romeSchema>;

/** Keys of the field's files that mean nothing here, or that are derived. */
const KNOWN_ELSEWHERE = new Set([
  "alg_name",
  "model_name",
  "stats_dir",
  "device",
  "model_parallel",
  "fp16",
  "rewrite_module_tmp",
  "layer_module_tmp",
  "mlp_module_tmp",
  "attn_module_tmp",
  "ln_f_module",
  "lm_head_module",
  "mom2_dataset",
  "mom2_n_samples",
  "mom2_dtype",
  "v_loss_layer",
  "batch_size",
  "max_length",
  "layer_selection",
  "P_loc",
  "rewrite_module_tmps",
  "calculate_objective_value",
]);

/**
 * Completes and checks hyper-parameters.
 * @param source where they come from, for error texts
 * @throws {InputError} naming the key, its value and what is allowed
 */
export function parseHparams<T extends z.ZodObject>(
  schema: T,
  values: Record<string, unknown>,
  source: string,
): { hparams: z.infer<T>; unknown: string[] } {
  const result = schema.safeParse(values);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new InputError(`${source} has a bad value for "${issue.path.join(".")}": ${issue.message}`);
  }
  const known = Object.keys(schema.shape);
  const unknown = Object.keys(values).filter((key) => !known.includes(key) && !KNOWN_ELSEWHERE.has(key));
  return { hparams: result.data, unknown };
}

/** Refuses a key that a method's schema does not have. @throws {InputError} with the nearest one */
export function requireKeys(method: string, schema: z.ZodObject, keys: readonly string[]): void {
  const known = Object.keys(schema.shape);
  const key = keys.find((key) => !known.includes(key));
  if (key === undefined) return;
  const guess = nearest(key, known);
  throw new InputError(`${method} has no hyper-parameter "${key}"`, {
    hint: guess ? `Did you mean ${guess}?` : `It has ${known.join(", ")}`,
  });
}

/** Refuses layers that a model does not have. @throws {InputError} naming the first */
export function requireLayers(
  { name, dims }: { name: string; dims: { layers: number } },
  layers: readonly number[],
): void {
  const beyond = layers.find((layer) => layer >= dims.layers);
  if (beyond === undefined) return;
  throw new InputError(`There is no layer ${beyond}: ${name} has layers 0 to ${dims.layers - 1}`);
}

/** The name among `names` nearest to a misspelt one, by edit distance, if it is near enough. */
export function nearest(name: string, names: readonly string[]): string | undefined {
  const scored = names.map((n) => ({ n, d: distance(name.toLowerCase(), n.toLowerCase()) }));
  const best = scored.sort((a, b) => a.d - b.d)[0];
  return best && best.d <= Math.max(2, Math.floor(best.n.length / 3)) ? best.n : undefined;
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}
