/**
 * LLaMA (Touvron et al. 2023) and its relatives by configuration: Mistral's sliding window, Qwen2's biases,
 * SmolLM2's tied head, grouped queries.
 *
 *   h += Wo · attention(rope(Wq n), rope(Wk n), Wv n)      n = rms(h)
 *   h += Wdown · (silu(Wgate n) ⊙ Wup n)                   n = rms(h)
 */
import { gated } from "../ops/activation.ts";
import { attention } from "../ops/attention.ts";
import type { Ctx } from "../ops/context.ts";
import { embed } from "../ops/embedding.ts";
import { rmsNorm } from "../ops/norm.ts";
import { rotary } from "../ops/rotary.ts";
import { gatherRows } from "../ops/rows.ts";
import type { LlamaConfig } from "../io/config.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type BlockContext, type Family, type Model, tensor } from "./model.ts";
import { addProjection, apply } from "./parts.ts";
import { atSite } from "./sites.ts";

export const llama: Family = {
  embed(ctx, model, rows) {
    const table = tensor(model, "embed");
    const occurrences = ctx.tape?.needs(table) ? rows.occurrences().ids : undefined;
    return embed(ctx, rows.ids, table, { occurrences });
  },

  block(ctx: Ctx, model: Model, layer: number, h: Tensor, block: BlockContext): Tensor {
    const { rows, cache, hooks, select } = block;
    const { heads, kvHeads, headDim } = model.dims;
    const { normEps } = model.config as LlamaConfig;
    const at = `layer.${layer}` as const;
    const map = (role: string, x: Tensor) => apply(ctx, model, block, `${at}.${role}`, x);
    const rope = (x: Tensor, positions: Tensor, n: number) =>
      rotary(ctx, x, tensor(model, "rotary"), positions, {
        heads: n,
        headDim,
        rotaryDim: headDim,
        interleaved: false,
      });

    const n = rmsNorm(ctx, h, tensor(model, `${at}.attn.norm`), normEps);
    const nq = select ? gatherRows(ctx, n, select.index) : n;
    const q = rope(map("attn.q", nq), (select ?? rows).positions, heads);
    const k = rope(map("attn.k", n), rows.positions, kvHeads);
    const v = map("attn.v", n);
    const shape = { heads, kvHeads, headDim, scale: 1 / Math.sqrt(headDim) };
    const mixed = attention(ctx, q, k, v, select?.map ?? rows.map(layer), shape, cache?.stores[layer]);
    const stream = select ? gatherRows(ctx, h, select.index) : h;
    const mid = addProjection(ctx, model, block, `${at}.attn.o`, mixed, stream);

    const m = rmsNorm(ctx, mid, tensor(model, `${at}.mlp.norm`), normEps);
    const key = gated(ctx, map("mlp.gate", m), map("mlp.up", m), "silu");
    return addProjection(ctx, model, block, `${at}.mlp.down`, atSite(ctx, hooks, `${at}.mlp.key`, key), mid);
  },

  final: (ctx, model, h) =>
    rmsNorm(ctx, h, tensor(model, "final.norm"), (model.config as LlamaConfig).normEps),
};
