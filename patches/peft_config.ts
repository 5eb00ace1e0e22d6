/**
 * adapter_config.json of a PEFT LoRA adapter: what of it changes numbers is read, what emend does not do is
 * refused by name. A key that is new to emend and set to something is refused too: a wrong sum is worse than
 * none.
 */
import { z } from "npm:zod@4.6.7";
import { InputError, show } from "../engine/io/errors.ts";
import { parseJsonObject } from "../engine/io/json.ts";

/** What of the config the numbers depend on. */
export interface PeftConfig {
  /** The rank of a module's factors. */
  rank(module: string): number;
  /** What B A is multiplied by. */
  scale(module: string): number;
  /** The hyper-parameters as the file has them, for the patch. */
  hparams: Record<string, unknown>;
}

const size = z.number().int().min(1).max(2 ** 20);
const configSchema = z.looseObject({
  peft_type: z.string(),
  r: size,
  lora_alpha: z.number(),
  use_rslora: z.boolean().nullish(),
  rank_pattern: z.record(z.string(), size).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
  bias: z.string().nullish(),
  init_lora_weights: z.union([z.boolean(), z.string()]).nullish(),
});

/** Keys that say where an adapter is or how it was trained: its factors already hold the outcome. */
const WITHOUT_EFFECT = new Set([
  "task_type",
  "auto_mapping",
  "peft_version",
  "base_model_name_or_path",
  "revision",
  "inference_mode",
  "target_modules",
  "exclude_modules",
  "lora_dropout",
  "fan_in_fan_out",
  "layers_to_transform",
  "layers_pattern",
  "megatron_core",
  "runtime_config",
  "eva_config",
  "loftq_config",
  "qalora_group_size",
]);

/** Why a key that is set stops the import. */
const REFUSED: Record<string, string> = {
  use_dora: "it is a DoRA adapter, which scales whole columns",
  lora_bias: "it trains biases (lora_bias)",
  modules_to_save: "it replaces whole modules (modules_to_save)",
  layer_replication: "it repeats layers (layer_replication)",
  trainable_token_indices: "it trains token embeddings (trainable_token_indices)",
  target_parameters: "it targets parameters instead of modules (target_parameters)",
  alora_invocation_tokens: "it is only active after some tokens (alora_invocation_tokens)",
};

/** Ways of starting the factors that leave the base as it is; others take a part of it away. */
const PLAIN_STARTS: unknown[] = [true, false, null, undefined, "gaussian", "eva", "orthogonal"];

/**
 * Reads the text of adapter_config.json.
 * @param path for error texts
 * @throws {InputError} for what is no plain LoRA adapter
 */
export function parsePeftConfig(text: string, path: string): PeftConfig {
  const raw = parseJsonObject(text, path);
  const { peft_type: type } = raw;
  if (typeof type === "string" && type.toUpperCase() !== "LORA") {
    throw new InputError(`${path} is of an adapter of type ${show(type)}; emend imports LORA`);
  }
  const result = configSchema.safeParse(raw);
  if (!result.success) {
    const { path: at, message } = result.error.issues[0];
    throw new InputError(`Cannot read ${path}: bad ${at.map(String).join(".")}: ${message}`);
  }
  const { r, lora_alpha, use_rslora, rank_pattern, alpha_pattern, ...rest } = result.data;
  refuseUnknown(rest, path);
  const ranks = patterns(rank_pattern ?? {}, path), alphas = patterns(alpha_pattern ?? {}, path);
  const rank = (module: string) => lookUp(ranks, module) ?? r;
  return {
    rank,
    scale(module) {
      const alpha = lookUp(alphas, module) ?? lora_alpha;
      return use_rslora ? alpha / Math.sqrt(rank(module)) : alpha / rank(module);
    },
    hparams: {
      r,
      lora_alpha,
      ...use_rslora && { use_rslora },
      ...ranks.length > 0 && { rank_pattern },
      ...alphas.length > 0 && { alpha_pattern },
    },
  };
}

function refuseUnknown(rest: Record<string, unknown>, path: string): void {
  const { peft_type: _, bias, init_lora_weights: start, ...others } = rest;
  const refuse = (why: string, hint?: string) => new InputError(`Cannot import ${path}: ${why}`, { hint });
  if (bias !== "none" && bias !== undefined && bias !== null) {
    throw refuse(`it trains biases (bias ${show(bias)})`);
  }
  if (!PLAIN_STARTS.includes(start)) {
    throw refuse(
      `its base was changed when it was made (init_lora_weights ${show(start)})`,
      "Convert it to a plain LoRA adapter with PEFT's path_initial_model_for_weight_conversion",
    );
  }
  for (const [key, value] of Object.entries(others)) {
    if (WITHOUT_EFFECT.has(key) || !isSet(value)) continue;
    throw refuse(REFUSED[key] ?? `emend does not know its ${show(key)}`);
  }
}

function isSet(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

type Pattern = [pattern: RegExp, value: number];

/** PEFT's patterns: regular expressions for the end of a module's name, the first that matches wins. */
function patterns(values: Record<string, number>, path: string): Pattern[] {
  return Object.entries(values).map(([key, value]) => {
    const bad = new InputError(`Cannot read ${path}: ${show(key)} is no pattern that emend reads`);
    // A quantified group, or many quantifiers, can take a regular expression for ever.
    if (key.length > 300 || /\)[*+?{]/.test(key) || key.split(/[*+{]/).length > 4) throw bad;
    try {
      return [new RegExp(`^(?:.*\\.)?(?:${key})$`), value];
    } catch {
      throw bad;
    }
  });
}

function lookUp(list: Pattern[], module: string): number | undefined {
  return list.find(([pattern]) => pattern.test(module))?.[1];
}
