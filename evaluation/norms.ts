/**
 * How much edits change weights, from their factors alone: with ΔW = L Rᵀ
 *
 *   ‖ΔW‖² = Σ (LᵀL) ∘ (RᵀR)
 *   ‖W + ΔW‖² = ‖W‖² + 2·tr(Rᵀ Wᵀ L) + ‖ΔW‖²
 *
 * so no matrix of the weight's size is made; ‖W‖² is read once a weight. A norm that grows from edit to edit
 * announces collapse (Gupta et al. 2024, "Model editing at scale leads to gradual and catastrophic forgetting").
 */
import type { WeightDelta } from "../editors/edit.ts";
import { toFloat32 } from "../engine/io/convert.ts";
import type { Gpu } from "../engine/gpu/device.ts";
import { type Model, weight } from "../engine/models/model.ts";
import { type Ctx, temp } from "../engine/ops/context.ts";
import { linear, type Overlay, type Weight } from "../engine/ops/linear.ts";
import { matmul } from "../engine/ops/matmul.ts";
import { createTensor, freeTensor, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";

/** What changes did to one weight. */
export interface WeightGrowth {
  role: string;
  /** ‖ΔW‖ */
  frobenius: number;
  /** ‖ΔW‖ / ‖W‖ */
  relative: number;
  /** ‖W + ΔW‖ / ‖W‖ − 1; negative where the weight shrinks. */
  growth: number;
}

/**
 * What deltas do to the stored weights, whatever lies on the model; deltas of one weight count together.
 * @throws {GpuError} when one does not fit the model
 */
export async function weightChanges(model: Model, deltas: readonly WeightDelta[]): Promise<WeightGrowth[]> {
  const { gpu } = model;
  const tensors: Tensor[] = [];
  const upload = (label: string, rows: number, rank: number, values: Float32Array) => {
    const t = fromHost(gpu, label, [rows, rank], values);
    tensors.push(t);
    return t;
  };
  try {
    const changed = new Map<Weight, Overlay[]>();
    for (const { role, rank, left, right } of deltas) {
      const w = weight(model, role);
      const overlay = {
        left: upload("ΔW left", w.out, rank, left),
        right: upload("ΔW right", w.in, rank, right),
      };
      changed.set(w, [...changed.get(w) ?? [], overlay]);
    }
    return await measure(gpu, changed);
  } finally {
    tensors.forEach((t) => freeTensor(gpu, t));
  }
}

/** What the edits that lie on a model do to its weights. */
export async function overlaidChanges(model: Model): Promise<WeightGrowth[]> {
  const edited = [...model.weights.values()].filter(({ overlays }) => overlays.length > 0);
  return await measure(model.gpu, new Map(edited.map((w) => [w, w.overlays])));
}

/** The largest growth of a norm, 0 when nothing is changed. */
export function largestGrowth(changes: readonly WeightGrowth[]): number {
  return changes.length ? Math.max(...changes.map(({ growth }) => growth)) : 0;
}

async function measure(gpu: Gpu, changed: ReadonlyMap<Weight, readonly Overlay[]>): Promise<WeightGrowth[]> {
  if (changed.size === 0) return [];
  using own = new DisposableStack();
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  /** A product of factors, kept for reading. */
  const products: Tensor[] = [];
  const product = (layout: "tn" | "nn", a: Tensor, b: Tensor) => {
    const shape = [a.shape[layout === "tn" ? 1 : 0], b.shape[1]];
    const c = own.adopt(createTensor(gpu, "product of factors", shape), (t) => freeTensor(gpu, t));
    matmul(ctx, layout, a, b, c);
    products.push(c);
  };
  for (const [w, overlays] of changed) {
    for (const a of overlays) {
      product("nn", timesWeight(ctx, own, a.right, w), a.left);
      for (const b of overlays) {
        product("tn", a.left, b.left);
        product("tn", a.right, b.right);
      }
    }
  }
  using plan = ctx.r.finish("norms");
  plan.run();
  const values = (await readTensors(gpu, ...products) as Float32Array[]).values();
  const out: WeightGrowth[] = [];
  for (const [w, overlays] of changed) {
    let trace = 0, delta2 = 0;
    for (const { left: { shape: [, rank] } } of overlays) {
      const cross = values.next().value!;
      for (let i = 0; i < rank; i++) trace += cross[i * rank + i];
      for (const _ of overlays) {
        const left = values.next().value!, right = values.next().value!;
        for (let i = 0; i < left.length; i++) delta2 += left[i] * right[i];
      }
    }
    delta2 = Math.max(0, delta2);
    const base2 = await squaredNorm(gpu, w.matrix);
    const frobenius = Math.sqrt(delta2);
    out.push({
      role: w.role,
      frobenius,
      relative: frobenius / Math.sqrt(base2),
      // Small growth is not lost in the rounding of 1 + x.
      growth: Math.expm1(Math.log1p((2 * trace + delta2) / base2) / 2),
    });
  }
  return out;
}

/** (W R)ᵀ [rank, out] of the stored weight, for R [in, rank]. */
function timesWeight(ctx: Ctx, own: DisposableStack, right: Tensor, w: Weight): Tensor {
  const [width, rank] = right.shape;
  const eye = new Float32Array(rank * rank);
  for (let i = 0; i < rank; i++) eye[i * rank + i] = 1;
  const identity = fromHost(ctx.gpu, "identity", [rank, rank], eye);
  own.adopt(identity, (t) => freeTensor(ctx.gpu, t));
  const transposed = temp(ctx, "Rᵀ", [rank, width]);
  matmul(ctx, "nt", identity, right, transposed);
  return linear(ctx, transposed, { ...w, bias: undefined, overlays: [] });
}

/** ‖W‖² of stored matrices; they never change. */
const SQUARED = new WeakMap<Tensor, number>();

async function squaredNorm(gpu: Gpu, matrix: Tensor): Promise<number> {
  const known = SQUARED.get(matrix);
  if (known !== undefined) return known;
  const [stored] = await readTensors(gpu, matrix);
  const values = stored instanceof Uint8Array
    ? toFloat32(matrix.dtype === "bf16" ? "BF16" : "F16", stored)
    : stored;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  SQUARED.set(matrix, sum);
  return sum;
}
