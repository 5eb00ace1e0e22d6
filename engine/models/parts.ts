/**
 * Parts: what stands beside a model's weights and acts by its input. Extra feed-forward slots (CaliNET,
 * T-Patcher), a codebook (GRACE), a side matrix (WISE) and adapters under a lookup (MELO) are all the same to the
 * model: after it has applied one of its linear maps it asks the parts of that map, in order, and goes on with
 * what they return.
 *
 * A part that has nothing to say for a row leaves the row's bits as they are: it gets y with the residual stream
 * already in it, computed as if there were no part, and rewrites rows. Who decides by the prompt decides once a
 * sequence, at the prompt's end; the rows of a batch go each their own way, and with cached keys the decision
 * lies beside them (`KvCache.notes`), so that a text is ended by who began it. `additions/` makes parts of the
 * numbers that editors give and patches keep.
 */
import type { Ctx } from "../ops/context.ts";
import { add } from "../ops/elementwise.ts";
import { linear } from "../ops/linear.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type BlockContext, type Model, weight } from "./model.ts";
import { atSite } from "./sites.ts";

/** A linear map at work. */
export interface Applied {
  /** Its input, [R, in]. */
  readonly x: Tensor;
  /** Its output, with the residual where there is one, [R, out]. */
  readonly y: Tensor;
  /** What is in y beside the map's own output. */
  readonly residual?: Tensor;
  readonly block: BlockContext;
}

/** Rewrites the output of a map, or returns it as it is. Called while recording. */
export type Beside = (ctx: Ctx, applied: Applied) => Tensor;

/** Something beside the weights, on the device. */
export interface Part extends Disposable {
  /** What it does at each map, by role: `layer.3.mlp.down`. */
  readonly at: ReadonlyMap<string, Beside>;
  /** Layers at which it decides by rows that the last block may leave out: all of them must come to it. */
  readonly whole: readonly number[];
  /** Its numbers, for the fingerprint. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/** W x + b (+ residual) of a role, and what the parts beside it make of that. */
export function apply(
  ctx: Ctx,
  model: Model,
  block: BlockContext,
  role: string,
  x: Tensor,
  options: { residual?: Tensor; label?: string } = {},
): Tensor {
  const { residual } = options;
  let y = linear(ctx, x, weight(model, role), options);
  for (const { at } of model.parts) y = at.get(role)?.(ctx, { x, y, residual, block }) ?? y;
  return y;
}

/** stream + W x: fused when nobody looks at W x, else through its site. */
export function addProjection(
  ctx: Ctx,
  model: Model,
  block: BlockContext,
  role: `layer.${number}.attn.o` | `layer.${number}.mlp.down`,
  x: Tensor,
  stream: Tensor,
): Tensor {
  const { hooks } = block;
  const site = role.replace(/\w+$/, "out") as `layer.${number}.attn.out` | `layer.${number}.mlp.out`;
  if (!hooks?.has(site)) {
    return apply(ctx, model, block, role, x, { residual: stream, label: `${site} + stream` });
  }
  return add(ctx, stream, atSite(ctx, hooks, site, apply(ctx, model, block, role, x)));
}
