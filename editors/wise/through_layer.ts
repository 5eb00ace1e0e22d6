/** The block of a map whose output is changed again and again, with what does not change computed once. */
import { forward, type Model } from "../../engine/models/model.ts";
import type { Applied, Beside, Part } from "../../engine/models/parts.ts";
import type { Rows } from "../../engine/models/rows.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { createTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { withParts } from "../beside/map_rows.ts";

/** A map at work, wherever it does it. */
export type AtWork = Omit<Applied, "block">;

/** Records the layer of a map with another output of it; returns the residual stream that the layer leaves, [R, D]. */
export type ThroughLayer = (ctx: Ctx, change: (at: AtWork) => Tensor) => Tensor;

/**
 * Runs the model up to the map `role` and keeps what it needs. The last map of a block ends it, so all of the block
 * is known; before any other one the layer's input is, and the layer is recorded again.
 * @param own takes the tensors, which must outlive every plan that is recorded through the layer
 */
export function throughLayer(
  model: Model,
  role: string,
  rows: Rows,
  own: (t: Tensor) => Tensor,
): ThroughLayer {
  const { gpu } = model;
  const layer = Number(role.split(".")[1]);
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const keep = (label: string, t: Tensor) => {
    const kept = own(createTensor(gpu, label, t.shape));
    copy(ctx, t, kept);
    return kept;
  };
  let through: ThroughLayer;
  if (role.endsWith(".mlp.down")) {
    let at: AtWork;
    const last = beside(role, layer, (_, { x, y, residual }) => {
      at = {
        x: keep("map input", x),
        y: keep("map output", y),
        residual: residual && keep("stream", residual),
      };
      return y;
    });
    forward(ctx, withParts(model, [...model.parts, last]), rows, { to: layer + 1 });
    through = (_, change) => change(at);
  } else {
    const input = keep("block input", forward(ctx, model, rows, { to: layer }));
    through = (ctx, change) => {
      const part = beside(role, layer, (_, at) => change(at));
      return forward(ctx, withParts(model, [...model.parts, part]), rows, {
        from: layer,
        to: layer + 1,
        input,
      });
    };
  }
  using plan = ctx.r.finish(`input of ${role}`);
  plan.run();
  return through;
}

/** A part that does one thing at one map. */
const beside = (role: string, layer: number, act: Beside): Part => ({
  at: new Map([[role, act]]),
  whole: [layer],
  tensors: new Map(),
  [Symbol.dispose]() {},
});
