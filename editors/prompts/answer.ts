/** What answers a prompt in scope: the base model, the base model with a trained adapter on it, or a sibling. */
import type { LoadedModel } from "../../engine/models/load.ts";
import { type Model, weight } from "../../engine/models/model.ts";
import { unrouted } from "../../engine/models/route.ts";
import { freeTensor } from "../../engine/tensor/tensor.ts";
import { fromHost } from "../../engine/tensor/transfer.ts";
import type { WeightDelta } from "../edit.ts";
import { seracOf } from "../serac/file.ts";
import type { PromptEdit } from "./edit.ts";
import { loadSibling } from "./sibling.ts";

/** A model that answers; disposing it frees what it has of its own. */
export interface Answerer extends Disposable {
  model: Model;
}

/**
 * Makes the model that answers. The base's weights are shared, not copied.
 * @throws {InputError} when the adapter or the sibling is not there or another one
 */
export async function answererOf(model: Model, answers: PromptEdit["answers"]): Promise<Answerer> {
  if (answers.kind === "base") return { model: unrouted(model), [Symbol.dispose]() {} };
  if (answers.kind === "sibling") {
    const sibling = await loadSibling(model, answers);
    return { model: sibling, [Symbol.dispose]: () => sibling[Symbol.dispose]() };
  }
  const { editor } = await seracOf(model as LoadedModel, answers.editor, answers.hash);
  return adapted(model, editor.adapter);
}

/** A view of a model with factors on its maps; the model itself keeps what it has. */
export function adapted(model: Model, adapter: readonly WeightDelta[]): Answerer {
  const { gpu } = model;
  const owned = new DisposableStack();
  const weights = new Map(model.weights);
  for (const { role, rank, left, right } of adapter) {
    const w = weight(model, role);
    const upload = (side: string, rows: number, values: Float32Array) =>
      owned.adopt(
        fromHost(gpu, `${role} adapter ${side}`, [rows, rank], values, { owner: "adapters" }),
        (t) => freeTensor(gpu, t),
      );
    const overlay = { left: upload("left", w.out, left), right: upload("right", w.in, right) };
    weights.set(role, { ...w, overlays: [...w.overlays, overlay] });
  }
  const view = Object.create(model, { weights: { value: weights } });
  return { model: view, [Symbol.dispose]: () => owned.dispose() };
}
