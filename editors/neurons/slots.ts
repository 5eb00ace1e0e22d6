/**
 * Value slots: column i of the down projection is what neuron i writes into the residual stream (Dai et al.
 * 2022, sections 4.3 and 5). Changing a fact rewrites the slots of its neurons; the changes are low-rank.
 */
import { type Model, tensor, weight } from "../../engine/models/model.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { embed } from "../../engine/ops/embedding.ts";
import { linear } from "../../engine/ops/linear.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { WeightDelta } from "../edit.ts";
import { unitVectors } from "./interventions.ts";
import type { Neuron } from "./select.ts";

/** The value slots of neurons, [D] each, with the edits that lie on the model. Waits for the GPU once. */
export async function valueSlots(model: Model, neurons: readonly Neuron[]): Promise<Float32Array[]> {
  const { dims: { inner, width } } = model;
  const groups = byLayer(neurons);
  const read = await onDevice(
    model,
    groups.map(({ members }) => [members.length, width]),
    (ctx, upload) =>
      groups.map(({ layer, members }) => {
        const units = new Float32Array(members.length * inner);
        members.forEach(({ neuron }, r) => units[r * inner + neuron.index] = 1);
        const x = upload(fromHost(ctx.gpu, "unit vectors", [members.length, inner], units));
        return linear(ctx, x, { ...weight(model, `layer.${layer}.mlp.down`), bias: undefined });
      }),
  );
  const slots: Float32Array[] = [];
  groups.forEach(({ members }, g) =>
    members.forEach(({ place }, r) => slots[place] = read[g].subarray(r * width, (r + 1) * width))
  );
  return slots;
}

/** Word embeddings e(t) of tokens, [D] each. Waits for the GPU once. */
export async function wordEmbeddings(model: Model, ids: readonly number[]): Promise<Float32Array[]> {
  const { width } = model.dims;
  const [all] = await onDevice(model, [[ids.length, width]], (ctx, upload) => {
    const asked = upload(fromHost(ctx.gpu, "tokens", [ids.length], Uint32Array.from(ids)));
    return [embed(ctx, asked, tensor(model, "embed"))];
  });
  return ids.map((_, i) => all.subarray(i * width, (i + 1) * width));
}

/** Sets the neurons' slots to zero: one rank a neuron. */
export async function eraseSlots(model: Model, neurons: readonly Neuron[]): Promise<WeightDelta[]> {
  const { inner, width } = model.dims;
  const slots = await valueSlots(model, neurons);
  return byLayer(neurons).map(({ layer, members }) => {
    const rank = members.length;
    const left = new Float32Array(width * rank);
    members.forEach(({ place }, r) => slots[place].forEach((x, d) => left[d * rank + r] = -x));
    return { role: roleOf(layer), rank, left, right: unitVectors(members.map((m) => m.neuron), inner) };
  });
}

/** Adds `factors[n]·direction` to the slot of neuron n: one rank a layer. */
export function shiftSlots(
  model: Model,
  neurons: readonly Neuron[],
  direction: Float32Array,
  factors: readonly number[],
): WeightDelta[] {
  return byLayer(neurons).map(({ layer, members }) => {
    const right = new Float32Array(model.dims.inner);
    members.forEach(({ neuron, place }) => right[neuron.index] = factors[place]);
    return { role: roleOf(layer), rank: 1, left: direction, right };
  });
}

/** Weights of the two embeddings in an update, on scales matched to the slot. */
export interface UpdateOptions {
  norm_lambda1: number;
  norm_lambda2: number;
}

/**
 * The authors' update from token t to t': every slot W_i becomes
 *
 *   W_i − λ1·‖W_i‖/‖e(t)‖·e(t) + λ2·‖W_i‖/‖e(t')‖·e(t')
 */
export async function updateSlots(
  model: Model,
  neurons: readonly Neuron[],
  { from, to }: { from: number; to: number },
  { norm_lambda1, norm_lambda2 }: UpdateOptions,
): Promise<WeightDelta[]> {
  const [old, wanted] = await wordEmbeddings(model, [from, to]);
  const norms = (await valueSlots(model, neurons)).map((slot) => Math.hypot(...slot));
  const a = norm_lambda1 / Math.hypot(...old), b = norm_lambda2 / Math.hypot(...wanted);
  return shiftSlots(model, neurons, old.map((x, d) => b * wanted[d] - a * x), norms);
}

function roleOf(layer: number): string {
  return `layer.${layer}.mlp.down`;
}

/** Neurons by ascending layer, with their places in the list. */
function byLayer(neurons: readonly Neuron[]) {
  const placed = neurons.map((neuron, place) => ({ neuron, place }));
  return [...Map.groupBy(placed, ({ neuron }) => neuron.layer)].sort(([a], [b]) => a - b)
    .map(([layer, members]) => ({ layer, members }));
}

/** Runs ops and reads their results; what is uploaded for them is freed. */
async function onDevice(
  model: Model,
  shapes: readonly (readonly number[])[],
  record: (ctx: Ctx, upload: (t: Tensor) => Tensor) => Tensor[],
): Promise<Float32Array[]> {
  const { gpu } = model;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, (t) => freeTensor(gpu, t));
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  const kept = shapes.map((shape) => own(createTensor(gpu, "kept", shape)));
  record(ctx, own).forEach((t, i) => copy(ctx, t, kept[i]));
  using plan = ctx.r.finish("read slots");
  plan.run();
  return await readTensors(gpu, ...kept) as Float32Array[];
}
