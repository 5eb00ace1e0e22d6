/**
 * Changes of whole tensors on a loaded model: an edited copy in f32 takes a tensor's place, the stored one stays
 * as it is and comes back when the change is taken off. Every tensor of a model can be changed, by its role: a
 * linear map's matrix, its bias (`layer.3.mlp.down.bias`), a norm, a table of embeddings (with a head that is
 * tied to it).
 */
import { GpuError } from "../gpu/errors.ts";
import type { Weight } from "../ops/linear.ts";
import { unpack } from "../ops/unpack.ts";
import { createTensor, freeTensor, type Tensor } from "../tensor/tensor.ts";
import { fromHost } from "../tensor/transfer.ts";
import type { Model } from "./model.ts";

/** One changed tensor. */
interface Replaced {
  /** As the checkpoint has it. */
  stored: Tensor;
  /** stored + Σ changes */
  edited: Tensor;
  /** In the order in which they came. */
  changes: Float32Array[];
}

const REPLACED = new WeakMap<Model["tensors"], Map<string, Replaced>>();

/**
 * Adds a change to a tensor; dispose the result to take exactly this one off again, in any order.
 * @param change in stored order
 * @throws {GpuError} when the model has no tensor of that role, or the sizes differ
 */
export function changeTensor(model: Model, role: string, change: Float32Array): Disposable {
  const replaced = REPLACED.get(model.tensors) ?? new Map<string, Replaced>();
  REPLACED.set(model.tensors, replaced);
  const before = replaced.get(role);
  const stored = before?.stored ?? currentTensor(model, role);
  const all = [...before?.changes ?? [], change];
  install(model, replaced, role, { stored, edited: edit(model, role, stored, all), changes: all });
  let on = true;
  return {
    [Symbol.dispose]() {
      if (!on) return;
      on = false;
      const { changes } = replaced.get(role)!;
      // The last of equal ones: the same array may lie on the model twice.
      const rest = changes.toSpliced(changes.lastIndexOf(change), 1);
      const edited = rest.length ? edit(model, role, stored, rest) : stored;
      install(model, replaced, role, { stored, edited, changes: rest });
    },
  };
}

/** The tensor that stands for a role now, edited or stored. @throws {GpuError} when there is none */
export function currentTensor(model: Model, role: string): Tensor {
  const bias = /^(.*)\.bias$/.exec(role)?.[1];
  const found = model.weights.get(role)?.matrix ?? model.tensors.get(role) ??
    (bias === undefined ? undefined : model.weights.get(bias)?.bias);
  if (!found) throw new GpuError(`${model.name} has no weight "${role}"`);
  return found;
}

/** The checkpoint's own tensor of a role, whatever stands in its place. @throws {GpuError} when there is none */
export function storedTensor(model: Model, role: string): Tensor {
  return REPLACED.get(model.tensors)?.get(role)?.stored ?? currentTensor(model, role);
}

/** Roles whose tensors are changed now. */
export function changedRoles(model: Model): string[] {
  return [...REPLACED.get(model.tensors)?.keys() ?? []];
}

/**
 * The same model without anything that lies on it: the checkpoint's tensors, no overlay, no part and no router. A
 * view, to be used at once; the model itself stays as it is.
 */
export function unedited(model: Model): Model {
  const changes = [...REPLACED.get(model.tensors)?.values() ?? []];
  const stored = (t: Tensor) => changes.find(({ edited }) => edited === t)?.stored ?? t;
  const weights = [...model.weights].map(([role, w]): [string, Weight] => [role, {
    ...w,
    matrix: stored(w.matrix),
    ...(w.bias ? { bias: stored(w.bias) } : {}),
    overlays: [],
  }]);
  const tensors = [...model.tensors].map(([role, t]): [string, Tensor] => [role, stored(t)]);
  return Object.create(model, {
    weights: { value: new Map(weights) },
    tensors: { value: new Map(tensors) },
    parts: { value: [] },
  });
}

function edit(
  { gpu }: Model,
  role: string,
  stored: Tensor,
  changes: readonly Float32Array[],
): Tensor {
  const edited = createTensor(gpu, `edited ${role}`, stored.shape, { owner: "overlays" });
  const uploads: Tensor[] = [];
  try {
    const ctx = { gpu, r: gpu.recorder() };
    unpack(ctx, stored, edited);
    for (const change of changes) {
      const t = fromHost(gpu, `ΔW of ${role}`, stored.shape, change);
      uploads.push(t);
      unpack(ctx, t, edited, { accumulate: true });
    }
    using plan = ctx.r.finish(`edit ${role}`);
    plan.run();
    return edited;
  } catch (error) {
    freeTensor(gpu, edited);
    throw error;
  } finally {
    uploads.forEach((t) => freeTensor(gpu, t));
  }
}

/** Puts a tensor where the role's is: the loader made these maps and records, and only this file changes them. */
function install(model: Model, replaced: Map<string, Replaced>, role: string, now: Replaced): void {
  const old = currentTensor(model, role);
  const { edited, stored } = now;
  const tensors = model.tensors as Map<string, Tensor>;
  if (tensors.get(role) === old) tensors.set(role, edited);
  for (const w of model.weights.values() as Iterable<{ role: string; matrix: Tensor; bias?: Tensor }>) {
    // A tied head is the table itself, unless it has a change of its own.
    if (w.role === role || (w.matrix === old && !role.startsWith("head"))) w.matrix = edited;
    if (`${w.role}.bias` === role) w.bias = edited;
  }
  if (old !== stored) freeTensor(model.gpu, old);
  if (edited === stored) replaced.delete(role);
  else replaced.set(role, now);
}
