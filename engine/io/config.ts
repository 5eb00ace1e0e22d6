/**
 * A Hugging Face config.json as a typed, checked description of the model. Both spellings in use are
 * read: rope_theta and rope_scaling at the top level (transformers up to 4) or inside rope_parameters
 * (transformers 5). Defaults are those of transformers' own config classes.
 */
import { z } from "npm:zod@4.6.7";
import { InputError, show } from "./errors.ts";
import { parseRope, type Rope, type RopeScaling } from "./config_rope.ts";

export type { RopeScaling } from "./config_rope.ts";

/** A GPT-2 model. */
export interface Gpt2Config {
  type: "gpt2";
  vocab: number;
  /** Width of the residual stream. */
  width: number;
  /** Width of the MLP's hidden layer. */
  inner: number;
  layers: number;
  heads: number;
  maxPositions: number;
  normEps: number;
  /** The output matrix is the embedding. */
  tied: boolean;
  activation: Gpt2Activation;
  /** Divide attention scores by √(head width). */
  scaleAttnWeights: boolean;
  /** Divide attention scores by layer + 1 as well. */
  scaleByLayer: boolean;
  bos?: number;
  eos?: number;
}

/** `gelu_new` and `gelu_pytorch_tanh` are the tanh form, `gelu` is the exact one. */
export type Gpt2Activation = "gelu_new" | "gelu_pytorch_tanh" | "gelu" | "relu" | "silu";

/** A model of the LLaMA family. */
export interface LlamaConfig {
  type: "llama";
  variant: "llama" | "mistral" | "qwen2";
  vocab: number;
  width: number;
  inner: number;
  layers: number;
  heads: number;
  /** Key/value heads; divides `heads`. */
  kvHeads: number;
  headDim: number;
  maxPositions: number;
  ropeTheta: number;
  /** Absent when rotary positions are plain. */
  ropeScaling?: RopeScaling;
  normEps: number;
  tied: boolean;
  /** q, k and v projections have a bias. */
  attentionBias: boolean;
  /** The attention's output projection has one (in qwen2 it has not, though q, k and v have). */
  outputBias: boolean;
  mlpBias: boolean;
  /** Tokens that a position sees, itself included; absent when it sees all. */
  slidingWindow?: number;
  /** First layer that the window applies to (qwen2 leaves the first ones whole). */
  slidingFrom: number;
  activation: "silu";
  bos?: number;
  eos?: number;
  /** Every id that ends a text; some models have several. */
  stops: number[];
}

/** What `parseConfig` returns, told apart by `type`. */
export type ModelConfig = Gpt2Config | LlamaConfig;

/** A whole number from 1 to `max`; the bounds are far above any real model, to catch lies early. */
export const count = (max: number) => z.number().int().min(1).max(max);
export const LIMITS = {
  vocab: 2 ** 24,
  width: 2 ** 17,
  inner: 2 ** 20,
  layers: 2048,
  heads: 4096,
  positions: 2 ** 27,
};

const tokenId = z.number().int().min(0).max(LIMITS.vocab);
const tokenIds = z.union([tokenId, z.array(tokenId)]).nullish();
export const epsilon = z.number().positive().max(1);

const gpt2Schema = z.object({
  vocab_size: count(LIMITS.vocab).default(50257),
  n_embd: count(LIMITS.width).default(768),
  n_inner: count(LIMITS.inner).nullish(),
  n_layer: count(LIMITS.layers).default(12),
  n_head: count(LIMITS.heads).default(12),
  n_positions: count(LIMITS.positions).default(1024),
  layer_norm_epsilon: epsilon.default(1e-5),
  tie_word_embeddings: z.boolean().default(true),
  activation_function: z.enum(["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu"]).default("gelu_new"),
  scale_attn_weights: z.boolean().default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  add_cross_attention: z.literal(false).nullish(),
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
});

const llamaSchema = z.object({
  vocab_size: count(LIMITS.vocab),
  hidden_size: count(LIMITS.width),
  intermediate_size: count(LIMITS.inner),
  num_hidden_layers: count(LIMITS.layers),
  num_attention_heads: count(LIMITS.heads),
  num_key_value_heads: count(LIMITS.heads).nullish(),
  head_dim: count(LIMITS.width).nullish(),
  max_position_embeddings: count(LIMITS.positions).optional(),
  rms_norm_eps: epsilon.default(1e-6),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  hidden_act: z.literal(["silu", "swish"]).default("silu"),
  // null means no window; older Mistral configs leave the key out and mean 4096.
  sliding_window: count(LIMITS.positions).nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.number().int().min(0).nullish(),
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
});

const VARIANTS = ["llama", "mistral", "qwen2"] as const;
/** Values that transformers fills in where a config says nothing. */
const DEFAULT_POSITIONS = { llama: 2048, mistral: 131072, qwen2: 32768 };

/**
 * Checks a config.json.
 * @param raw the parsed JSON
 * @throws InputError naming the key that is missing, wrong or inconsistent
 */
export function parseConfig(raw: Record<string, unknown>): ModelConfig {
  const type = raw.model_type;
  if (type === "gpt2") return gpt2(raw);
  const variant = VARIANTS.find((name) => name === type);
  if (variant !== undefined) return llama(raw, variant);
  const what = type === undefined ? "No model_type in the config" : `Unknown model_type ${show(type)}`;
  throw new InputError(`${what}; emend reads gpt2, ${VARIANTS.join(", ")}`);
}

function gpt2(raw: Record<string, unknown>): Gpt2Config {
  const c = check(gpt2Schema, raw);
  divides("n_embd", c.n_embd, "n_head", c.n_head);
  return {
    type: "gpt2",
    vocab: c.vocab_size,
    width: c.n_embd,
    inner: c.n_inner ?? 4 * c.n_embd,
    layers: c.n_layer,
    heads: c.n_head,
    maxPositions: c.n_positions,
    normEps: c.layer_norm_epsilon,
    tied: c.tie_word_embeddings,
    activation: c.activation_function,
    scaleAttnWeights: c.scale_attn_weights,
    scaleByLayer: c.scale_attn_by_inverse_layer_idx,
    ...specials(c),
  };
}

function llama(raw: Record<string, unknown>, variant: LlamaConfig["variant"]): LlamaConfig {
  const c = check(llamaSchema, raw);
  const heads = c.num_attention_heads;
  const kvHeads = c.num_key_value_heads ?? (variant === "mistral" ? 8 : heads);
  divides("num_attention_heads", heads, "num_key_value_heads", kvHeads);
  if (c.head_dim == null) divides("hidden_size", c.hidden_size, "num_attention_heads", heads);
  const headDim = c.head_dim ?? c.hidden_size / heads;
  if (headDim % 2 !== 0) {
    throw new InputError(`The config has heads of ${headDim}; rotary positions need an even size`);
  }
  const maxPositions = c.max_position_embeddings ?? DEFAULT_POSITIONS[variant];
  const rope: Rope = parseRope(raw, maxPositions);
  const qwen = variant === "qwen2";
  const window = qwen && c.use_sliding_window !== true || variant === "llama" ? undefined : c.sliding_window;
  const slidingWindow = window === undefined && variant === "mistral" && !("sliding_window" in raw)
    ? 4096
    : window;
  return {
    type: "llama",
    variant,
    vocab: c.vocab_size,
    width: c.hidden_size,
    inner: c.intermediate_size,
    layers: c.num_hidden_layers,
    heads,
    kvHeads,
    headDim,
    maxPositions,
    ...rope,
    normEps: c.rms_norm_eps,
    tied: c.tie_word_embeddings,
    attentionBias: qwen || c.attention_bias === true,
    outputBias: !qwen && c.attention_bias === true,
    mlpBias: c.mlp_bias === true,
    ...(slidingWindow == null ? {} : { slidingWindow }),
    slidingFrom: qwen ? c.max_window_layers ?? 28 : 0,
    activation: "silu",
    ...specials(c),
    stops: [c.eos_token_id ?? []].flat(),
  };
}

/** The first of each special id; the rest of a list is in `stops`. */
function specials(c: { bos_token_id?: TokenIds; eos_token_id?: TokenIds }): { bos?: number; eos?: number } {
  const bos = [c.bos_token_id ?? []].flat()[0];
  const eos = [c.eos_token_id ?? []].flat()[0];
  return { ...(bos === undefined ? {} : { bos }), ...(eos === undefined ? {} : { eos }) };
}

type TokenIds = number | number[] | null;

/** What a schema makes of a config. @throws {InputError} naming the first bad key and its value */
export function check<T extends z.ZodType>(schema: T, raw: Record<string, unknown>): z.infer<T> {
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  const key = path.map(String).join(".");
  const value = raw[String(path[0])];
  throw new InputError(
    `Bad ${key} in the config: ${message}, found ${value === undefined ? "nothing" : show(value)}`,
  );
}

/** @throws {InputError} when one of the config's numbers is no multiple of another */
export function divides(name: string, value: number, divisorName: string, divisor: number): void {
  if (value % divisor !== 0) {
    throw new InputError(`The config's ${name} ${value} is not a multiple of its ${divisorName} ${divisor}`);
  }
}
