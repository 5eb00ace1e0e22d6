/** A weight's numbers on the host, as a map from inputs to outputs, whatever the order in which it is stored. */
import { type Model, weight } from "../engine/models/model.ts";
import { currentTensor, storedTensor } from "../engine/models/replace.ts";
import { unpack } from "../engine/ops/unpack.ts";
import { createTensor, freeTensor } from "../engine/tensor/tensor.ts";
import { readF32 } from "../engine/tensor/transfer.ts";
import { denseDelta, type WeightDelta } from "./edit.ts";

/**
 * W [out, in] in f32.
 * @param edited with everything that lies on the model, else as the checkpoint has it
 */
export async function hostWeight(model: Model, role: string, edited: boolean): Promise<Float32Array> {
  const { gpu } = model;
  const w = weight(model, role);
  const stored = edited ? currentTensor(model, role) : storedTensor(model, role);
  const plain = createTensor(gpu, `f32 ${role}`, stored.shape);
  const ctx = { gpu, r: gpu.recorder() };
  unpack(ctx, stored, plain);
  using plan = ctx.r.finish(`read ${role}`);
  plan.run();
  const values = await readF32(gpu, plain);
  freeTensor(gpu, plain);
  const W = w.layout === "out_in" ? values : transposed(values, w.in, w.out);
  if (!edited) return W;
  for (const { left, right } of w.overlays) {
    addProduct(W, await readF32(gpu, left), await readF32(gpu, right), w.in);
  }
  return W;
}

/** ΔW [out, in] of a low-rank delta. */
export function denseOf({ left, right, rank }: WeightDelta): Float32Array {
  const width = right.length / rank;
  const W = new Float32Array(left.length / rank * width);
  addProduct(W, left, right, width);
  return W;
}

/** A change ΔW [out, in] of a map, in the order in which the checkpoint stores it. */
export function denseChange(model: Model, role: string, W: Float32Array): WeightDelta {
  const { in: inner, out, layout } = weight(model, role);
  return denseDelta(role, layout === "out_in" ? W : transposed(W, out, inner));
}

/** A low-rank delta as it is where its factors are fewer numbers than the matrix, else as a dense one. */
export function factorsOrDense(model: Model, delta: WeightDelta): WeightDelta {
  const { in: inner, out } = weight(model, delta.role);
  return delta.rank * (inner + out) <= inner * out ? delta : denseChange(model, delta.role, denseOf(delta));
}

/** W += left · rightᵀ */
function addProduct(W: Float32Array, left: Float32Array, right: Float32Array, width: number): void {
  const rank = right.length / width;
  const columns = Array.from(
    { length: rank },
    (_, k) => Float32Array.from({ length: width }, (_, i) => right[i * rank + k]),
  );
  for (let at = 0, o = 0; at < W.length; at += width, o++) {
    const row = W.subarray(at, at + width);
    for (let k = 0; k < rank; k++) {
      const v = left[o * rank + k], column = columns[k];
      for (let i = 0; i < width; i++) row[i] += v * column[i];
    }
  }
}

/** [rows, cols] → [cols, rows] */
export function transposed(values: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = values[r * cols + c];
  return out;
}
