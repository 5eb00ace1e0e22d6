/**
 * How much edits change weights, from their factors alone: with ΔW = L Rᵀ
 *
 *   ‖ΔW‖² = Σ (LᵀL) ∘ (RᵀR)
 *   ‖W + ΔW‖² = ‖W‖² + 2·tr(Rᵀ Wᵀ L) + ‖ΔW‖²
 *
 * so no matrix of the weight's size is made; ‖W‖² is read once a weight. A change with a dense part is added up
 * on the host. A norm that grows from edit to edit
 * announces collapse (Gupta et al. 2024, "Model editing at scale leads to gradual and catastrophic forgetting").
 */
import { denseDelta, type WeightDelta } from "../editors/edit.ts";
import { toFloat32 } from "../engine/io/convert.ts";
import type { Gpu } from "../engine/gpu/device.ts";
import { type Model, weight } from "../engine/models/model.ts";
import { changedRoles, currentTensor, storedTensor } from "../engine/models/replace.ts";
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
  const densely = new Set(deltas.flatMap(({ role, dense }) => dense ? [role] : []));
  const tensors: Tensor[] = [];
  const upload = (label: string, rows: number, rank: number, values: Float32Array) => {
    const t = fromHost(gpu, label, [rows, rank], values);
    tensors.push(t);
    return t;
  };
  try {
    const changed = new Map<Weight, Overlay[]>();
    // By role, as each delta below has a record of the weight as it is stored.
    const stored = new Map<string, Weight>();
    for (const { role, rank, left, right } of deltas.filter(({ role }) => !densely.has(role))) {
      const w = stored.get(role) ?? { ...weight(model, role), matrix: storedTensor(model, role) };
      stored.set(role, w);
      const overlay = {
        left: upload("ΔW left", w.out, rank, left),
        right: upload("ΔW right", w.in, rank, right),
      };
      changed.set(w, [...changed.get(w) ?? [], overlay]);
    }
    const out = await measure(gpu, changed);
    for (const role of densely) {
      out.push(await measureDense(model, role, deltas.filter((delta) => delta.role === role)));
    }
    return out;
  } finally {
    tensors.forEach((t) => freeTensor(gpu, t));
  }
}

/** What the edits that lie on a model do to its weights. */
export async function overlaidChanges(model: Model): Promise<WeightGrowth[]> {
  const densely = changedRoles(model);
  const edited = [...model.weights.values()].filter(({ role, overlays }) =>
    overlays.length > 0 && !densely.includes(role)
  );
  const out = await measure(model.gpu, new Map(edited.map((w) => [w, w.overlays])));
  for (const role of densely) {
    const dense = await valuesOf(model.gpu, currentTensor(model, role));
    const base = await valuesOf(model.gpu, storedTensor(model, role));
    for (let i = 0; i < dense.length; i++) dense[i] -= base[i];
    const factors = [];
    for (const { left, right } of model.weights.get(role)?.overlays ?? []) {
      const [l, r] = await readTensors(model.gpu, left, right) as Float32Array[];
      factors.push({ role, rank: left.shape[1], left: l, right: r });
    }
    out.push(await measureDense(model, role, [denseDelta(role, dense), ...factors]));
  }
  return out;
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
    out.push(growthOf(w.role, base2, trace, delta2));
  }
  return out;
}

/** What deltas of one tensor do together, with ΔW made in full. */
async function measureDense(
  model: Model,
  role: string,
  deltas: readonly WeightDelta[],
): Promise<WeightGrowth> {
  const base = await valuesOf(model.gpu, storedTensor(model, role));
  const total = new Float64Array(base.length);
  for (const { rank, left, right, dense } of deltas) {
    dense?.forEach((x, i) => total[i] += x);
    if (rank === 0) continue;
    const { layout } = weight(model, role);
    const [byRow, byCol] = layout === "out_in" ? [left, right] : [right, left];
    const cols = byCol.length / rank;
    for (let i = 0; i < total.length; i++) {
      const row = Math.floor(i / cols) * rank, col = (i % cols) * rank;
      for (let r = 0; r < rank; r++) total[i] += byRow[row + r] * byCol[col + r];
    }
  }
  let base2 = 0, cross = 0, delta2 = 0;
  base.forEach((w, i) => {
    base2 += w * w;
    cross += w * total[i];
    delta2 += total[i] ** 2;
  });
  return growthOf(role, base2, cross, delta2);
}

/** From ‖W‖², ⟨W, ΔW⟩ and ‖ΔW‖². */
function growthOf(role: string, base2: number, cross: number, delta2: number): WeightGrowth {
  const frobenius = Math.sqrt(delta2);
  return {
    role,
    frobenius,
    relative: frobenius / Math.sqrt(base2),
    // Small growth is not lost in the rounding of 1 + x.
    growth: Math.expm1(Math.log1p((2 * cross + delta2) / base2) / 2),
  };
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
  const values = await valuesOf(gpu, matrix);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  SQUARED.set(matrix, sum);
  return sum;
}

/** A tensor of any weight dtype as f32. */
async function valuesOf(gpu: Gpu, t: Tensor): Promise<Float32Array> {
  const [stored] = await readTensors(gpu, t);
  if (!(stored instanceof Uint8Array)) return stored as Float32Array;
  return toFloat32(t.dtype === "bf16" ? "BF16" : "F16", stored);
}
