/**
 * The config.json of a BERT-type encoder (Devlin et al. 2019), checked; defaults are those of transformers'
 * BertConfig. Encoders write no text, so they are no {@link ModelConfig}.
 */
import { z } from "npm:zod@4.6.7";
import { check, count, divides, epsilon, LIMITS } from "./config.ts";
import { InputError, show } from "./errors.ts";

/** A BERT model without heads. */
export interface BertConfig {
  type: "bert";
  vocab: number;
  width: number;
  /** Width of the MLP's hidden layer. */
  inner: number;
  layers: number;
  heads: number;
  maxPositions: number;
  /** Kinds of segment; a single text is of kind 0. */
  types: number;
  normEps: number;
  /** `gelu` is the exact one. */
  activation: "gelu" | "gelu_new" | "relu" | "silu";
}

const schema = z.object({
  vocab_size: count(LIMITS.vocab).default(30522),
  hidden_size: count(LIMITS.width).default(768),
  intermediate_size: count(LIMITS.inner).default(3072),
  num_hidden_layers: count(LIMITS.layers).default(12),
  num_attention_heads: count(LIMITS.heads).default(12),
  max_position_embeddings: count(LIMITS.positions).default(512),
  type_vocab_size: count(LIMITS.vocab).default(2),
  layer_norm_eps: epsilon.default(1e-12),
  hidden_act: z.enum(["gelu", "gelu_new", "relu", "silu"]).default("gelu"),
  position_embedding_type: z.literal("absolute").nullish(),
  is_decoder: z.literal(false).nullish(),
});

/**
 * Checks a config.json.
 * @throws {InputError} naming the key that is missing, wrong or inconsistent, or for another kind of model
 */
export function parseBertConfig(raw: Record<string, unknown>): BertConfig {
  if (raw.model_type !== "bert") {
    throw new InputError(`A sentence encoder has the model_type "bert", not ${show(raw.model_type)}`, {
      hint: "all-MiniLM-L6-v2 is one",
    });
  }
  const c = check(schema, raw);
  divides("hidden_size", c.hidden_size, "num_attention_heads", c.num_attention_heads);
  return {
    type: "bert",
    vocab: c.vocab_size,
    width: c.hidden_size,
    inner: c.intermediate_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    maxPositions: c.max_position_embeddings,
    types: c.type_vocab_size,
    normEps: c.layer_norm_eps,
    activation: c.hidden_act,
  };
}
