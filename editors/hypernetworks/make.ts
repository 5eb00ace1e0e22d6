/**
 * Edits made by a trained network (memory-and-meta guide section 2.2 steps 1 to 8 without learning, and section
 * 2.7): one forward and partly backward pass of the base, one pass of the network, and factors of ΔW. Requests made
 * together put all their rows into one sum, with the loss averaged over all their tokens; a network that reads the
 * edit as a text gets each request for itself, and the changes add up.
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import { forward, type Model, weight } from "../../engine/models/model.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";
import type { WeightDelta } from "../edit.ts";
import { factorsOrDense } from "../host_weight.ts";
import { collectGradients } from "./gradients.ts";
import { layerOf } from "./maps.ts";
import type { EditText, Hypernetwork } from "./network.ts";
import { editWeights } from "./step.ts";
import { answerOf, f32, packScored, u32 } from "./texts.ts";

/** What a network makes of edits. */
export interface Made {
  deltas: WeightDelta[];
  /** Token-mean −log p of each edit before it. */
  losses: number[];
}

/**
 * Makes the changes of edits. The model is left as it was. Waits once.
 * @param edits those of one group make one loss and one sum
 * @throws {GpuError} when a number of theirs is not finite
 */
export async function makeChanges(
  model: Model,
  network: Hypernetwork,
  edits: readonly EditText[],
): Promise<Made> {
  const { gpu } = model;
  using owned = new DisposableStack();
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const packed = owned.use(packScored(model, edits.map((edit) => answerOf(edit, edit.group))));
  const weights = editWeights(network, packed, (text) => edits[text].group);
  const from = Math.min(...network.roles.map(layerOf));
  const input = forward(ctx, model, packed.rows, { to: from });
  const targets = u32(gpu, owned, "edit targets", packed.scored.map(({ target }) => target));
  const want = { targets, weights: f32(gpu, owned, "edit weights", weights) };
  const { gradients, losses } = collectGradients(ctx, model, network.roles, packed, want, { from, input });
  const groups = new Set(edits.map(({ group }) => group)).size;
  const factors = network.factors(ctx, { gradients, edits, groups, learn: false, owned });

  const keep = (t: Tensor): Tensor => {
    const kept = owned.adopt(
      createTensor(gpu, t.label, t.shape),
      (kept) => freeTensor(gpu, kept),
    );
    copy(ctx, t, kept);
    return kept;
  };
  const kept = network.roles.map((role) => ({
    role,
    keys: keep(factors.get(role)!.keys),
    values: keep(factors.get(role)!.values),
  }));
  const loss = keep(losses);
  using plan = ctx.r.finish("changes");
  plan.run();
  const [l, ...sides] = await readTensors(
    gpu,
    loss,
    ...kept.flatMap(({ keys, values }) => [keys, values]),
  ) as Float32Array[];

  const sums = edits.map(() => ({ nll: 0, tokens: 0 }));
  packed.scored.forEach(({ text }, i) => {
    sums[text].nll += l[i] / weights[i];
    sums[text].tokens++;
  });
  return {
    deltas: kept.map(({ role }, i) => changeOf(model, role, sides[2 * i], sides[2 * i + 1])),
    losses: sums.map(({ nll, tokens }) => nll / tokens),
  };
}

/** ΔW = Σ_b values_b keys_bᵀ of one map as an edit has it: rows that say nothing left out, dense where that is less. */
function changeOf(model: Model, role: string, keys: Float32Array, values: Float32Array): WeightDelta {
  const { in: inner, out } = weight(model, role);
  const all = keys.length / inner;
  if (![keys, values].every((side) => side.every(Number.isFinite))) {
    throw new GpuError(`The editor's change of ${role} is not finite`);
  }
  const told = (side: Float32Array, b: number, width: number) =>
    side.subarray(b * width, (b + 1) * width).some((x) => x !== 0);
  const rows = Array.from({ length: all }, (_, b) => b)
    .filter((b) => told(keys, b, inner) && told(values, b, out));
  const rank = rows.length;
  const columns = (side: Float32Array, width: number) =>
    Float32Array.from(
      { length: width * rank },
      (_, at) => side[rows[at % rank] * width + Math.floor(at / rank)],
    );
  const [left, right] = [columns(values, out), columns(keys, inner)];
  return factorsOrDense(model, { role, rank, left, right, shared: true });
}
