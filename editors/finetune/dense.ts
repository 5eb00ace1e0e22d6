/**
 * Training weights themselves: copies in f32 take the place of the stored tensors while training runs, and what
 * they changed is the edit. The base is never touched. An L∞ ball around the start may hold them (FT-L; Zhu et
 * al. 2020, "Modifying memories in transformer models").
 */
import { toFloat32 } from "../../engine/io/convert.ts";
import type { Model } from "../../engine/models/model.ts";
import { currentTensor } from "../../engine/models/replace.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { projectLinf } from "../../engine/ops/optim.ts";
import { unpack } from "../../engine/ops/unpack.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";
import type { Adaptation, Start } from "./train.ts";

/** One trained tensor. */
interface Trained {
  /** A linear map's role, the same with `.bias`, or the role of a norm or a table. */
  role: string;
  /** f32, in stored order. */
  param: Tensor;
  /** Where it started, of any dtype; the stored tensor itself unless edits lay on it. */
  start: Tensor;
}

/** An adaptation that trains tensors; what it has changed can be read. */
export interface DenseAdaptation extends Adaptation, Disposable {
  /** θ − θ0 by role, in stored order. Waits once a tensor. */
  changes(): Promise<{ role: string; values: Float32Array }[]>;
}

/** The roles of everything that a model is made of: maps, their biases, norms and tables. */
export function allRoles(model: Model): string[] {
  const tables = new Set(model.tensors.values());
  const maps = [...model.weights.values()].flatMap(({ role, matrix, bias }) => [
    // A tied head is the table of embeddings, which is there already.
    ...tables.has(matrix) ? [] : [role],
    ...bias ? [`${role}.bias`] : [],
  ]);
  // The rotary table is a constant, no parameter.
  return [...maps, ...[...model.tensors.keys()].filter((role) => role !== "rotary")];
}

/** The MLPs' output projections of layers: the matrices, and their biases where there are any. */
export function projectionRoles(model: Model, layers: readonly number[]): string[] {
  const wanted = new Set(layers.flatMap((n) => [`layer.${n}.mlp.down`, `layer.${n}.mlp.down.bias`]));
  return allRoles(model).filter((role) => wanted.has(role));
}

/**
 * Makes tensors trainable.
 * @param radius keeps every element within start ± radius after each update
 * @throws {GpuError} for a role that the model does not have
 */
export function trainTensors(
  model: Model,
  roles: readonly string[],
  radius?: number,
): DenseAdaptation {
  const { gpu } = model;
  using owned = new DisposableStack();
  const trained: Trained[] = [];
  for (const role of roles) trained.push(makeTrainable(model, role, owned));
  const byRole = new Map(trained.map(({ role, param }) => [role, param]));
  const kept = owned.move();
  return {
    start: startOf(roles),
    parameters: trained.map(({ param }) => param),
    place: () => placed(model, byRole),
    settle(ctx) {
      if (radius === undefined) return;
      for (const { param, start } of trained) projectLinf(ctx, param, start, radius);
    },
    async changes() {
      const out = [];
      for (const { role, param, start } of trained) {
        const values = await readValues(model, param);
        const before = await readValues(model, start);
        for (let i = 0; i < values.length; i++) values[i] -= before[i];
        out.push({ role, values });
      }
      gpu.check();
      return out;
    },
    [Symbol.dispose]: () => kept.dispose(),
  };
}

function makeTrainable(model: Model, role: string, owned: DisposableStack): Trained {
  const { gpu } = model;
  const make = (label: string, { shape }: Tensor) =>
    owned.adopt(createTensor(gpu, label, shape, { owner: "training" }), (t) => freeTensor(gpu, t));
  const tensor = currentTensor(model, role);
  const param = make(`trained ${role}`, tensor);
  const map = model.weights.get(role);
  const overlays = map?.overlays ?? [];
  const ctx = { gpu, r: gpu.recorder() };
  unpack(ctx, tensor, param);
  for (const { left, right } of overlays) {
    const [a, b] = map!.layout === "out_in" ? [left, right] : [right, left];
    matmul(ctx, "nt", a, b, param, { accumulate: true });
  }
  const asStored = overlays.length === 0 && param.shards.length === tensor.shards.length;
  const start = asStored ? tensor : make(`start of ${role}`, tensor);
  if (!asStored) copy(ctx, param, start);
  using plan = ctx.r.finish(`start of ${role}`);
  plan.run();
  return { role, param, start };
}

async function readValues({ gpu }: Model, t: Tensor): Promise<Float32Array> {
  const [values] = await readTensors(gpu, t);
  return values instanceof Uint8Array
    ? toFloat32(t.dtype === "bf16" ? "BF16" : "F16", values)
    : values as Float32Array;
}

/** The model with parameters in the place of its tensors; edits that lay on them are in the parameters. */
function placed(model: Model, params: ReadonlyMap<string, Tensor>): Model {
  const tensors = new Map(model.tensors), weights = new Map(model.weights);
  for (const role of tensors.keys()) tensors.set(role, params.get(role) ?? tensors.get(role)!);
  for (const [role, w] of weights) {
    const table = [...model.tensors].find(([, t]) => t === w.matrix)?.[0];
    const matrix = params.get(role) ?? (table === undefined ? undefined : params.get(table));
    const bias = params.get(`${role}.bias`);
    if (!matrix && !bias) continue;
    const overlays = params.has(role) ? [] : w.overlays;
    weights.set(role, { ...w, matrix: matrix ?? w.matrix, bias: bias ?? w.bias, overlays });
  }
  return Object.create(model, { tensors: { value: tensors }, weights: { value: weights } });
}

function startOf(roles: readonly string[]): Start {
  const layers = roles.map((role) => Number(/^layer\.(\d+)\./.exec(role)?.[1] ?? NaN));
  if (roles.some((role) => role.startsWith("embed"))) return { at: "ids" };
  const layer = Math.min(...layers.filter(Number.isFinite));
  if (!Number.isFinite(layer)) return { at: "ids" };
  const here = roles.filter((role) => role.startsWith(`layer.${layer}.`));
  const only = here.every((role) => /\.mlp\.down(\.bias)?$/.test(role));
  return { at: only ? "key" : "block", layer };
}
