/**
 * What a GGUF file says about its model, in Hugging Face's words: a config.json made from the metadata,
 * the weights' names, and how each stored tensor differs from the transformers one.
 */
import { InputError, show } from "./errors.ts";
import type { GgufFile, GgufTensor } from "./gguf.ts";
import { ropeScalingOf } from "./gguf_rope.ts";

/** How to turn a stored tensor into the transformers one of the same name. */
export type Layout =
  | { kind: "same" }
  /** Rows of each head were interleaved for llama.cpp's rotary; put the two halves apart again. */
  | { kind: "heads"; heads: number }
  /** GPT-2's Conv1D matrices are [in, out] in transformers and [out, in] in GGUF. */
  | { kind: "transposed" };

/** A weight under its transformers name. `shape` is the transformers shape. */
export interface MappedTensor {
  name: string;
  tensor: GgufTensor;
  shape: number[];
  layout: Layout;
}

/** The model in a GGUF file. */
export interface GgufModel {
  config: Record<string, unknown>;
  weights: MappedTensor[];
}

const LLAMA_NAMES: Record<string, string> = {
  "token_embd": "model.embed_tokens",
  "output_norm": "model.norm",
  "output": "lm_head",
  "blk.N.attn_norm": "model.layers.N.input_layernorm",
  "blk.N.attn_q": "model.layers.N.self_attn.q_proj",
  "blk.N.attn_k": "model.layers.N.self_attn.k_proj",
  "blk.N.attn_v": "model.layers.N.self_attn.v_proj",
  "blk.N.attn_output": "model.layers.N.self_attn.o_proj",
  "blk.N.ffn_norm": "model.layers.N.post_attention_layernorm",
  "blk.N.ffn_gate": "model.layers.N.mlp.gate_proj",
  "blk.N.ffn_up": "model.layers.N.mlp.up_proj",
  "blk.N.ffn_down": "model.layers.N.mlp.down_proj",
};

const GPT2_NAMES: Record<string, string> = {
  "token_embd": "transformer.wte",
  "position_embd": "transformer.wpe",
  "output_norm": "transformer.ln_f",
  "output": "lm_head",
  "blk.N.attn_norm": "transformer.h.N.ln_1",
  "blk.N.attn_qkv": "transformer.h.N.attn.c_attn",
  "blk.N.attn_output": "transformer.h.N.attn.c_proj",
  "blk.N.ffn_norm": "transformer.h.N.ln_2",
  "blk.N.ffn_up": "transformer.h.N.mlp.c_fc",
  "blk.N.ffn_down": "transformer.h.N.mlp.c_proj",
};

/** By `general.architecture`: names, and whether llama.cpp's converter interleaves q and k rows. */
const ARCHITECTURES: Record<string, { names: Record<string, string>; interleaved: boolean }> = {
  llama: { names: LLAMA_NAMES, interleaved: true },
  mistral: { names: LLAMA_NAMES, interleaved: true },
  qwen2: { names: LLAMA_NAMES, interleaved: false },
  gpt2: { names: GPT2_NAMES, interleaved: false },
};

/**
 * Reads the model description of a file.
 * @throws InputError when the architecture is not one of ours, a key is missing, or a tensor is unknown
 */
export async function describeModel(file: GgufFile): Promise<GgufModel> {
  const { name: source } = file.source;
  const architecture = text(file, "general.architecture");
  if (!Object.hasOwn(ARCHITECTURES, architecture)) {
    const known = Object.keys(ARCHITECTURES).join(", ");
    throw new InputError(`Unknown architecture ${show(architecture)} in ${source}; emend reads ${known}`);
  }
  const parts = optional(file, "split.count") ?? 1;
  if (parts > 1) {
    throw new InputError(`${source} is one of ${parts} parts of a model`, {
      hint: "Join them first: llama-gguf-split --merge FIRST-PART OUTPUT",
    });
  }
  const { names, interleaved } = ARCHITECTURES[architecture];
  const config = architecture === "gpt2" ? gpt2Config(file) : await llamaConfig(file, architecture);
  const weights: MappedTensor[] = [];
  for (const tensor of file.tensors.values()) {
    // Rotary frequencies are in the config (see ropeScalingOf); old files list the plain ones too.
    if (/^rope_freqs\.|\.attn_rot_embd\.|\.rope_freqs\./.test(tensor.name)) continue;
    const name = hfName(tensor.name, names);
    if (name === undefined) {
      throw new InputError(
        `Unknown tensor ${show(tensor.name)} in ${source} for architecture ${architecture}`,
      );
    }
    const layout = layoutOf(tensor, architecture, interleaved, config);
    const shape = layout.kind === "transposed" ? tensor.shape.toReversed() : tensor.shape;
    weights.push({ name, tensor, shape, layout });
  }
  return { config, weights };
}

function hfName(stored: string, names: Record<string, string>): string | undefined {
  const [, block, role, part] = /^(blk\.\d+\.)?([a-z_0-9]+)\.(weight|bias)$/.exec(stored) ?? [];
  if (role === undefined) return undefined;
  const key = block === undefined ? role : `blk.N.${role}`;
  if (!Object.hasOwn(names, key)) return undefined;
  return `${names[key].replace("N", block?.slice(4, -1) ?? "N")}.${part}`;
}

function layoutOf(
  tensor: GgufTensor,
  architecture: string,
  interleaved: boolean,
  config: Record<string, unknown>,
): Layout {
  if (interleaved && /\.attn_[qk]\./.test(tensor.name)) {
    const key = tensor.name.includes(".attn_q.") ? "num_attention_heads" : "num_key_value_heads";
    const heads = config[key] as number;
    if (tensor.shape[0] % (2 * heads) !== 0) {
      throw new InputError(
        `Tensor ${show(tensor.name)} [${tensor.shape}] does not divide into ${heads} heads`,
      );
    }
    return { kind: "heads", heads };
  }
  const linear = /\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$/.test(tensor.name);
  return architecture === "gpt2" && linear ? { kind: "transposed" } : { kind: "same" };
}

async function llamaConfig(file: GgufFile, architecture: string): Promise<Record<string, unknown>> {
  const key = (name: string) => `${architecture}.${name}`;
  const heads = integer(file, key("attention.head_count"));
  const hidden = integer(file, key("embedding_length"));
  const modelClass = { llama: "Llama", mistral: "Mistral", qwen2: "Qwen2" }[architecture];
  const headDim = optional(file, key("attention.key_length")) ?? hidden / heads;
  const valueDim = optional(file, key("attention.value_length")) ?? headDim;
  const rotary = optional(file, key("rope.dimension_count")) ?? headDim;
  if (valueDim !== headDim || rotary !== headDim) {
    throw new InputError(
      `${file.source.name} has key heads of ${headDim}, value heads of ${valueDim} and ${rotary} rotary ` +
        "dimensions; emend reads models where the three are equal",
    );
  }
  if ((optional(file, key("expert_count")) ?? 0) > 0) {
    throw new InputError(`${file.source.name} is a mixture of experts, which emend does not read`);
  }
  const window = optional(file, key("attention.sliding_window"));
  const scaling = await ropeScalingOf(file, architecture, headDim);
  const bias = file.tensors.has("blk.0.attn_q.bias");
  return {
    architectures: [`${modelClass}ForCausalLM`],
    model_type: architecture,
    hidden_size: hidden,
    intermediate_size: integer(file, key("feed_forward_length")),
    num_hidden_layers: integer(file, key("block_count")),
    num_attention_heads: heads,
    num_key_value_heads: optional(file, key("attention.head_count_kv")) ?? heads,
    head_dim: headDim,
    hidden_act: "silu",
    rms_norm_eps: shortest(number(file, key("attention.layer_norm_rms_epsilon"))),
    rope_theta: shortest(optional(file, key("rope.freq_base")) ?? 10000),
    ...(scaling === undefined ? {} : { rope_scaling: scaling }),
    max_position_embeddings: integer(file, key("context_length")),
    ...(window === undefined ? {} : { sliding_window: window, use_sliding_window: true }),
    // A llama GGUF says nothing about biases; their presence does.
    ...(architecture === "llama"
      ? { attention_bias: bias, mlp_bias: file.tensors.has("blk.0.ffn_up.bias") }
      : {}),
    ...shared(file),
  };
}

function gpt2Config(file: GgufFile): Record<string, unknown> {
  const width = integer(file, "gpt2.embedding_length");
  const inner = integer(file, "gpt2.feed_forward_length");
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    n_embd: width,
    n_inner: inner === 4 * width ? null : inner,
    n_layer: integer(file, "gpt2.block_count"),
    n_head: integer(file, "gpt2.attention.head_count"),
    n_positions: integer(file, "gpt2.context_length"),
    n_ctx: integer(file, "gpt2.context_length"),
    layer_norm_epsilon: shortest(number(file, "gpt2.attention.layer_norm_epsilon")),
    activation_function: "gelu_new",
    ...shared(file),
  };
}

/** The keys that every architecture has. */
function shared(file: GgufFile): Record<string, unknown> {
  const embedding = file.tensors.get("token_embd.weight");
  if (embedding === undefined) throw new InputError(`${file.source.name} has no tensor "token_embd.weight"`);
  const bos = optional(file, "tokenizer.ggml.bos_token_id");
  const eos = optional(file, "tokenizer.ggml.eos_token_id");
  return {
    vocab_size: embedding.shape[0],
    // llama.cpp writes no output matrix when it is the embedding.
    tie_word_embeddings: !file.tensors.has("output.weight"),
    ...(bos === undefined ? {} : { bos_token_id: bos }),
    ...(eos === undefined ? {} : { eos_token_id: eos }),
    torch_dtype: "float32",
  };
}

/** A metadata string that must be there. @throws InputError */
export function text(file: GgufFile, key: string): string {
  const value = file.metadata.get(key);
  if (typeof value !== "string") throw missing(file, key, "a string", value);
  return value;
}

/** A metadata number that may be absent. @throws InputError when it is there but not a number */
export function optional(file: GgufFile, key: string): number | undefined {
  return file.metadata.has(key) ? number(file, key) : undefined;
}

function number(file: GgufFile, key: string): number {
  const value = file.metadata.get(key);
  if (typeof value !== "number" || !Number.isFinite(value)) throw missing(file, key, "a number", value);
  return value;
}

function integer(file: GgufFile, key: string): number {
  const value = number(file, key);
  if (!Number.isSafeInteger(value) || value < 1) throw missing(file, key, "a positive integer", value);
  return value;
}

function missing(file: GgufFile, key: string, expected: string, value: unknown): InputError {
  const found = value === undefined ? "absent" : typeof value === "number" ? value : `a ${typeof value}`;
  return new InputError(`Metadata ${key} of ${file.source.name} should be ${expected} but is ${found}`);
}

/** The shortest decimal with the same F32 value: 9.999999747378752e-6 was written as 1e-5. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}
