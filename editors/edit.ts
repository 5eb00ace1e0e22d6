/**
 * An edit as a value: low-rank changes of named weights with what made them. It lies on a model as overlays
 * on untouched base weights, so applying, comparing and undoing are instant and exact.
 */
import { type Model, weight } from "../engine/models/model.ts";
import type { Overlay } from "../engine/ops/linear.ts";
import { freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost } from "../engine/tensor/transfer.ts";
import type { EditRequest } from "./requests.ts";

/** ΔW = left · rightᵀ of one linear map, as a map from inputs to outputs. */
export interface WeightDelta {
  /** The role, for example `layer.10.mlp.down`. */
  role: string;
  rank: number;
  /** [out, rank] row-major */
  left: Float32Array;
  /** [in, rank] row-major */
  right: Float32Array;
}

/** How one request went. */
export interface EditOutcome {
  steps: number;
  /** Loss terms of every step. */
  losses: { nll: number; kl: number; wd: number }[];
  /** Things that the user should know, one sentence each. */
  warnings: string[];
}

/** What an editor returns. */
export interface Edit {
  method: string;
  hparams: Record<string, unknown>;
  requests: EditRequest[];
  deltas: WeightDelta[];
  outcomes: EditOutcome[];
}

/**
 * Puts deltas on a model; dispose the result to take exactly these off again.
 * @throws {GpuError} when one does not fit the model, which then has none of them
 */
export function applyDeltas(model: Model, deltas: readonly WeightDelta[]): Disposable {
  const { gpu } = model;
  using applied = new DisposableStack();
  for (const { role, rank, left, right } of deltas) {
    const w = weight(model, role);
    const upload = (side: string, rows: number, values: Float32Array) =>
      applied.adopt(
        fromHost(gpu, `${role} ΔW ${side}`, [rows, rank], values, { owner: "overlays" }),
        (t) => freeTensor(gpu, t),
      );
    const overlay: Overlay = { left: upload("left", w.out, left), right: upload("right", w.in, right) };
    w.overlays.push(overlay);
    applied.defer(() => w.overlays.splice(w.overlays.indexOf(overlay), 1));
  }
  return applied.move();
}
