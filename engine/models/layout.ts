/**
 * Where each role's weights are in a checkpoint: names, shapes and orientation of every family. One table a
 * family, so that the loader, the writer and the error texts agree.
 */
import type { Gpt2Config, LlamaConfig, ModelConfig } from "../io/config.ts";
import type { Dimensions } from "./model.ts";

/** A linear map of the checkpoint. */
export interface LinearEntry {
  kind: "linear";
  role: string;
  name: string;
  bias?: string;
  out: number;
  in: number;
  layout: "out_in" | "in_out";
}

/** A norm weight or bias: f32 on the device. */
export interface VectorEntry {
  kind: "vector";
  role: string;
  name: string;
  shape: number[];
}

/** An embedding table, as stored. */
export interface TableEntry {
  kind: "table";
  role: string;
  name: string;
  shape: number[];
}

export type Entry = LinearEntry | VectorEntry | TableEntry;

/** Everything a model needs from its checkpoint. `head` is left out when it is tied to `embed`. */
export function checkpointLayout(config: ModelConfig): Entry[] {
  return config.type === "gpt2" ? gpt2Layout(config) : llamaLayout(config);
}

/** The sizes of a model. */
export function dimensions(config: ModelConfig): Dimensions {
  const { layers, width, inner, vocab, heads, maxPositions } = config;
  const common = { layers, width, inner, vocab, heads, maxPositions };
  if (config.type === "gpt2") return { ...common, kvHeads: heads, headDim: width / heads, windows: [] };
  const { kvHeads, headDim, slidingWindow, slidingFrom } = config;
  const windows = Array.from({ length: layers }, (_, n) => n >= slidingFrom ? slidingWindow : undefined);
  return { ...common, kvHeads, headDim, windows };
}

function llamaLayout(c: LlamaConfig): Entry[] {
  const q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
  const entries: Entry[] = [
    { kind: "table", role: "embed", name: "model.embed_tokens.weight", shape: [c.vocab, c.width] },
    { kind: "vector", role: "final.norm", name: "model.norm.weight", shape: [c.width] },
  ];
  for (let n = 0; n < c.layers; n++) {
    const base = `model.layers.${n}`;
    const linear = (role: string, name: string, out: number, inner: number, bias: boolean): Entry => ({
      kind: "linear",
      role: `layer.${n}.${role}`,
      name: `${base}.${name}.weight`,
      bias: bias ? `${base}.${name}.bias` : undefined,
      out,
      in: inner,
      layout: "out_in",
    });
    const vector = (role: string, name: string): Entry => (
      { kind: "vector", role: `layer.${n}.${role}`, name: `${base}.${name}.weight`, shape: [c.width] }
    );
    entries.push(
      vector("attn.norm", "input_layernorm"),
      linear("attn.q", "self_attn.q_proj", q, c.width, c.attentionBias),
      linear("attn.k", "self_attn.k_proj", kv, c.width, c.attentionBias),
      linear("attn.v", "self_attn.v_proj", kv, c.width, c.attentionBias),
      linear("attn.o", "self_attn.o_proj", c.width, q, c.outputBias),
      vector("mlp.norm", "post_attention_layernorm"),
      linear("mlp.gate", "mlp.gate_proj", c.inner, c.width, c.mlpBias),
      linear("mlp.up", "mlp.up_proj", c.inner, c.width, c.mlpBias),
      linear("mlp.down", "mlp.down_proj", c.width, c.inner, c.mlpBias),
    );
  }
  if (!c.tied) entries.push(head("lm_head.weight", c.vocab, c.width));
  return entries;
}

function gpt2Layout(c: Gpt2Config): Entry[] {
  const entries: Entry[] = [
    { kind: "table", role: "embed", name: "transformer.wte.weight", shape: [c.vocab, c.width] },
    {
      kind: "table",
      role: "embed.positions",
      name: "transformer.wpe.weight",
      shape: [c.maxPositions, c.width],
    },
    { kind: "vector", role: "final.norm", name: "transformer.ln_f.weight", shape: [c.width] },
    { kind: "vector", role: "final.norm.bias", name: "transformer.ln_f.bias", shape: [c.width] },
  ];
  for (let n = 0; n < c.layers; n++) {
    const base = `transformer.h.${n}`;
    const conv = (role: string, name: string, inner: number, out: number): Entry => ({
      kind: "linear",
      role: `layer.${n}.${role}`,
      name: `${base}.${name}.weight`,
      bias: `${base}.${name}.bias`,
      out,
      in: inner,
      layout: "in_out",
    });
    const norm = (role: string, name: string): Entry[] => [
      { kind: "vector", role: `layer.${n}.${role}`, name: `${base}.${name}.weight`, shape: [c.width] },
      { kind: "vector", role: `layer.${n}.${role}.bias`, name: `${base}.${name}.bias`, shape: [c.width] },
    ];
    entries.push(
      ...norm("attn.norm", "ln_1"),
      conv("attn.qkv", "attn.c_attn", c.width, 3 * c.width),
      conv("attn.o", "attn.c_proj", c.width, c.width),
      ...norm("mlp.norm", "ln_2"),
      conv("mlp.up", "mlp.c_fc", c.width, c.inner),
      conv("mlp.down", "mlp.c_proj", c.inner, c.width),
    );
  }
  if (!c.tied) entries.push(head("lm_head.weight", c.vocab, c.width));
  return entries;
}

function head(name: string, vocab: number, width: number): Entry {
  return { kind: "linear", role: "head", name, out: vocab, in: width, layout: "out_in" };
}
