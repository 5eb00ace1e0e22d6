/**
 * BERT (Devlin et al. 2019): every token sees its whole sequence, learned positions, norms after the sums,
 * exact GELU. MiniLM (Wang et al. 2020) is one.
 *
 *   h = norm(token + position + segment)
 *   h = norm(h + Wo · attention(Wq h, Wk h, Wv h))
 *   h = norm(h + Wdown · gelu(Wup h))
 */
import type { Gpu } from "../gpu/device.ts";
import type { BertConfig } from "../io/config_bert.ts";
import { activation } from "../ops/activation.ts";
import { attention } from "../ops/attention.ts";
import type { Ctx } from "../ops/context.ts";
import { add } from "../ops/elementwise.ts";
import { embed } from "../ops/embedding.ts";
import { linear } from "../ops/linear.ts";
import { layerNorm } from "../ops/norm.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Entry } from "./layout.ts";
import { type Model, tensor, weight } from "./model.ts";
import type { Rows } from "./rows.ts";
import { atSite, type Hooks } from "./sites.ts";

/** A BERT model on the device. */
export interface Bert extends Pick<Model, "weights" | "tensors"> {
  readonly gpu: Gpu;
  readonly name: string;
  readonly config: BertConfig;
}

/**
 * Hidden states of the last layer, [R, D]. Sites: `embed`, `layer.N.out`.
 * @param rows packed with `bidirectional`
 * @param segments u32 [R] of zeros: single texts are of kind 0
 */
export function bert(ctx: Ctx, model: Bert, rows: Rows, segments: Tensor, hooks?: Hooks): Tensor {
  const { layers, width, heads, normEps, activation: kind } = model.config;
  const headDim = width / heads;
  const shape = { heads, kvHeads: heads, headDim, scale: 1 / Math.sqrt(headDim) };
  const w = (role: string) => weight(model, role);
  const norm = (x: Tensor, role: string) =>
    layerNorm(ctx, x, tensor(model, role), tensor(model, `${role}.bias`), normEps);

  const words = embed(ctx, rows.ids, tensor(model, "embed"), {
    positions: rows.positions,
    positionTable: tensor(model, "embed.positions"),
  });
  const summed = add(ctx, words, embed(ctx, segments, tensor(model, "embed.segments")));
  let h = atSite(ctx, hooks, "embed", norm(summed, "embed.norm"));
  for (let n = 0; n < layers; n++) {
    const at = `layer.${n}` as const;
    const [q, k, v] = ["q", "k", "v"].map((part) => linear(ctx, h, w(`${at}.attn.${part}`)));
    const mixed = attention(ctx, q, k, v, rows.map(n), shape);
    const mid = norm(linear(ctx, mixed, w(`${at}.attn.o`), { residual: h }), `${at}.attn.norm`);
    const key = activation(ctx, linear(ctx, mid, w(`${at}.mlp.up`)), kind);
    h = norm(linear(ctx, key, w(`${at}.mlp.down`), { residual: mid }), `${at}.mlp.norm`);
    h = atSite(ctx, hooks, `${at}.out`, h);
  }
  return h;
}

/** Where the weights are in a checkpoint, with or without the `bert.` prefix. */
export function bertLayout(c: BertConfig): Entry[] {
  const table = (role: string, name: string, rows: number): Entry => ({
    kind: "table",
    role,
    name: `bert.embeddings.${name}_embeddings.weight`,
    shape: [rows, c.width],
  });
  const norm = (role: string, name: string): Entry[] => [
    { kind: "vector", role, name: `bert.${name}.LayerNorm.weight`, shape: [c.width] },
    { kind: "vector", role: `${role}.bias`, name: `bert.${name}.LayerNorm.bias`, shape: [c.width] },
  ];
  const entries: Entry[] = [
    table("embed", "word", c.vocab),
    table("embed.positions", "position", c.maxPositions),
    table("embed.segments", "token_type", c.types),
    ...norm("embed.norm", "embeddings"),
  ];
  for (let n = 0; n < c.layers; n++) {
    const base = `encoder.layer.${n}`;
    const map = (role: string, name: string, out: number, inner: number): Entry => ({
      kind: "linear",
      role: `layer.${n}.${role}`,
      name: `bert.${base}.${name}.weight`,
      bias: `bert.${base}.${name}.bias`,
      out,
      in: inner,
      layout: "out_in",
    });
    entries.push(
      map("attn.q", "attention.self.query", c.width, c.width),
      map("attn.k", "attention.self.key", c.width, c.width),
      map("attn.v", "attention.self.value", c.width, c.width),
      map("attn.o", "attention.output.dense", c.width, c.width),
      ...norm(`layer.${n}.attn.norm`, `${base}.attention.output`),
      map("mlp.up", "intermediate.dense", c.inner, c.width),
      map("mlp.down", "output.dense", c.width, c.inner),
      ...norm(`layer.${n}.mlp.norm`, `${base}.output`),
    );
  }
  return entries;
}
