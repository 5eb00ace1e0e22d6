/**
 * Rotary positions in a config: the base and the scaling, from either of the two places that
 * transformers has kept them in. Formulas: transformers' modeling_rope_utils.py.
 */
import { z } from "npm:zod@4.6.7";
import { InputError, show } from "./errors.ts";
import { isObject } from "./json.ts";

/** How rotary frequencies or positions are stretched. `factor` is new length over old. */
export type RopeScaling =
  /** Positions divided by `factor`. */
  | { type: "linear"; factor: number }
  /** NTK: the base grows once a text is longer than `originalMaxPositions`. */
  | { type: "dynamic"; factor: number; originalMaxPositions: number }
  /** Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between. */
  | {
    type: "llama3";
    factor: number;
    lowFreqFactor: number;
    highFreqFactor: number;
    originalMaxPositions: number;
  }
  /** YaRN: a ramp over dimensions, and attention scores scaled by `attentionFactor`². */
  | {
    type: "yarn";
    factor: number;
    originalMaxPositions: number;
    betaFast: number;
    betaSlow: number;
    attentionFactor: number;
  };

/** The rotary part of a `LlamaConfig`. */
export interface Rope {
  ropeTheta: number;
  ropeScaling?: RopeScaling;
}

const positive = z.number().positive().max(1e9);
const schema = z.object({
  factor: positive.min(1).optional(),
  low_freq_factor: positive.optional(),
  high_freq_factor: positive.optional(),
  original_max_position_embeddings: positive.nullish(),
  beta_fast: positive.nullish(),
  beta_slow: positive.nullish(),
  attention_factor: positive.nullish(),
  partial_rotary_factor: z.number().optional(),
  rope_theta: z.number().positive().max(1e12).optional(),
});

/**
 * @param raw a parsed config.json
 * @param maxPositions its max_position_embeddings, the default for an original length
 * @throws InputError when a value is missing or wrong, or the scaling is one that emend lacks
 */
export function parseRope(raw: Record<string, unknown>, maxPositions: number): Rope {
  // An old key wins over the new one, as it does in transformers 5.
  const block = raw.rope_scaling ?? raw.rope_parameters ?? {};
  if (!isObject(block)) throw new InputError(`The config's rope_scaling is ${show(block)}, not an object`);
  const nested = raw.rope_scaling == null ? "rope_parameters" : "rope_scaling";
  const result = schema.safeParse(block);
  if (!result.success) {
    const { path, message } = result.error.issues[0];
    throw new InputError(`Bad ${nested}.${path.map(String).join(".")} in the config: ${message}`);
  }
  const r = result.data;
  const theta = r.rope_theta ?? raw.rope_theta ?? 10000;
  if (typeof theta !== "number" || !(theta > 0) || theta > 1e12) {
    throw new InputError(`Bad rope_theta in the config: ${show(theta)}`);
  }
  const partial = r.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
  if (partial !== 1) throw new InputError(`The config rotates only part of each head (${show(partial)})`);

  const need = (key: "factor" | "low_freq_factor" | "high_freq_factor"): number => {
    const value = r[key];
    if (value === undefined) throw new InputError(`The config's ${nested} has no ${key}`);
    return value;
  };
  const originalMaxPositions = r.original_max_position_embeddings ?? maxPositions;
  const type = block.rope_type ?? block.type ?? "default";
  switch (type) {
    case "default":
      return { ropeTheta: theta };
    case "linear":
      return { ropeTheta: theta, ropeScaling: { type: "linear", factor: need("factor") } };
    case "dynamic":
      return {
        ropeTheta: theta,
        ropeScaling: { type: "dynamic", factor: need("factor"), originalMaxPositions },
      };
    case "llama3": {
      const lowFreqFactor = need("low_freq_factor");
      const highFreqFactor = need("high_freq_factor");
      if (highFreqFactor <= lowFreqFactor) {
        throw new InputError(`The config's high_freq_factor ${highFreqFactor} is not above ${lowFreqFactor}`);
      }
      const factor = need("factor");
      return {
        ropeTheta: theta,
        ropeScaling: { type: "llama3", factor, lowFreqFactor, highFreqFactor, originalMaxPositions },
      };
    }
    case "yarn": {
      const factor = need("factor");
      return {
        ropeTheta: theta,
        ropeScaling: {
          type: "yarn",
          factor,
          originalMaxPositions,
          betaFast: r.beta_fast ?? 32,
          betaSlow: r.beta_slow ?? 1,
          attentionFactor: r.attention_factor ?? 0.1 * Math.log(factor) + 1,
        },
      };
    }
    default:
      throw new InputError(`Unknown rope scaling ${show(type)}; emend reads linear, dynamic, llama3, yarn`);
  }
}
