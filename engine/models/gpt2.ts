/**
 * GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, one fused query-key-value projection
 * (stored as Conv1D, [in, out]), GELU in its tanh form.
 *
 *   h += Wo · attention(split(Wqkv n))      n = layerNorm(h)
 *   h += Wproj · gelu(Wfc n)                n = layerNorm(h)
 */
import { activation } from "../ops/activation.ts";
import { attention } from "../ops/attention.ts";
import type { Ctx } from "../ops/context.ts";
import { embed } from "../ops/embedding.ts";
import { layerNorm } from "../ops/norm.ts";
import { splitColumns } from "../ops/columns.ts";
import { gatherRows } from "../ops/rows.ts";
import type { Gpt2Config } from "../io/config.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { activationOf, type BlockContext, type Family, type Model, tensor } from "./model.ts";
import { addProjection, apply } from "./parts.ts";
import { atSite } from "./sites.ts";

export const gpt2: Family = {
  embed(ctx, model, rows) {
    const table = tensor(model, "embed"), positionTable = tensor(model, "embed.positions");
    const mentions = ctx.tape?.needs(table, positionTable) ? rows.occurrences() : undefined;
    return embed(ctx, rows.ids, table, {
      positions: rows.positions,
      positionTable,
      occurrences: mentions?.ids,
      positionOccurrences: mentions?.positions,
    });
  },

  block(ctx: Ctx, model: Model, layer: number, h: Tensor, block: BlockContext): Tensor {
    const { rows, cache, hooks, select } = block;
    const { heads, headDim, width } = model.dims;
    const config = model.config as Gpt2Config;
    const at = `layer.${layer}` as const;
    const norm = (x: Tensor, name: string) =>
      layerNorm(ctx, x, tensor(model, `${at}.${name}`), tensor(model, `${at}.${name}.bias`), config.normEps);

    const qkv = apply(ctx, model, block, `${at}.attn.qkv`, norm(h, "attn.norm"));
    const [qAll, k, v] = splitColumns(ctx, qkv, [width, width, width]);
    const q = select ? gatherRows(ctx, qAll, select.index) : qAll;
    const scale = (config.scaleAttnWeights ? 1 / Math.sqrt(headDim) : 1) /
      (config.scaleByLayer ? layer + 1 : 1);
    const shape = { heads, kvHeads: heads, headDim, scale };
    const mixed = attention(ctx, q, k, v, select?.map ?? rows.map(layer), shape, cache?.stores[layer]);
    const stream = select ? gatherRows(ctx, h, select.index) : h;
    const mid = addProjection(ctx, model, block, `${at}.attn.o`, mixed, stream);

    const inner = apply(ctx, model, block, `${at}.mlp.up`, norm(mid, "mlp.norm"));
    const key = atSite(ctx, hooks, `${at}.mlp.key`, activation(ctx, inner, activationOf(model)));
    return addProjection(ctx, model, block, `${at}.mlp.down`, key, mid);
  },

  final: (ctx, model, h) =>
    layerNorm(
      ctx,
      h,
      tensor(model, "final.norm"),
      tensor(model, "final.norm.bias"),
      (model.config as Gpt2Config).normEps,
    ),
};
