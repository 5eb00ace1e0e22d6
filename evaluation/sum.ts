/**
 * Changes of one weight, added up as edits come. Factors stand side by side while they hold fewer numbers than the
 * weight; then their product takes their place, so that a thousand edits cost no more than a weight of their own,
 * in memory and in time. What comes out depends on the changes and their order alone.
 */
import type { WeightDelta } from "../editors/edit.ts";
import { type Model, weight } from "../engine/models/model.ts";
import { matmul } from "../engine/ops/matmul.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";

/**
 * ΔW₁ + ΔW₂ as one change. Waits for the GPU when it folds.
 * @param below what lies on the weight already
 * @throws {GpuError} when a change with factors is of no linear map of the model
 */
export async function addUp(
  model: Model,
  below: WeightDelta | undefined,
  delta: WeightDelta,
): Promise<WeightDelta> {
  const sum = below ? sideBySide(below, delta) : delta;
  if (sum.rank === 0) return sum;
  const { out, in: inner } = weight(model, sum.role);
  return sum.rank * (out + inner) < out * inner ? sum : await folded(model, sum);
}

/** Ranks side by side, dense parts added. */
function sideBySide(a: WeightDelta, b: WeightDelta): WeightDelta {
  const rank = a.rank + b.rank;
  const join = (x: Float32Array, y: Float32Array) => {
    const rows = (x.length + y.length) / (rank || 1);
    const both = new Float32Array(x.length + y.length);
    for (let row = 0; row < rows; row++) {
      both.set(x.subarray(row * a.rank, (row + 1) * a.rank), row * rank);
      both.set(y.subarray(row * b.rank, (row + 1) * b.rank), row * rank + a.rank);
    }
    return both;
  };
  const dense = a.dense && b.dense ? a.dense.map((x, i) => x + b.dense![i]) : a.dense ?? b.dense;
  return {
    ...{ role: a.role, rank, left: join(a.left, b.left), right: join(a.right, b.right) },
    ...(dense ? { dense } : {}),
  };
}

/** The same change without factors. */
async function folded(model: Model, { role, rank, left, right, dense }: WeightDelta): Promise<WeightDelta> {
  const { gpu } = model;
  const { out, in: inner, layout } = weight(model, role);
  using owned = new DisposableStack();
  const upload = (rows: number, values: Float32Array) =>
    owned.adopt(fromHost(gpu, `factors of ${role}`, [rows, rank], values), (t) => freeTensor(gpu, t));
  const l = upload(out, left), r = upload(inner, right);
  const [a, b] = layout === "out_in" ? [l, r] : [r, l];
  const product = owned.adopt(
    createTensor(gpu, `ΔW of ${role}`, [a.shape[0], b.shape[0]]),
    (t) => freeTensor(gpu, t),
  );
  const ctx = { gpu, r: gpu.recorder() };
  matmul(ctx, "nt", a, b, product);
  using plan = ctx.r.finish(`fold ${role}`);
  plan.run();
  const [values] = await readTensors(gpu, product) as Float32Array[];
  dense?.forEach((x, i) => values[i] += x);
  const none = new Float32Array(0);
  return { role, rank: 0, left: none, right: none, dense: values };
}
