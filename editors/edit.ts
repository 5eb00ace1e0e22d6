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

/** Puts deltas on a model; dispose the result to take exactly these off again. */
export function applyDeltas(model: Model, deltas: readonly WeightDelta[]): Disposable {
  const { gpu } = model;
  const applied = deltas.map(({ role, rank, left, right }) => {
    const w = weight(model, role);
    const overlay: Overlay = {
      left: fromHost(gpu, `${role} ΔW left`, [w.out, rank], left, { owner: "overlays" }),
      right: fromHost(gpu, `${role} ΔW right`, [w.in, rank], right, { owner: "overlays" }),
    };
    w.overlays.push(overlay);
    return { w, overlay };
  });
  return {
    [Symbol.dispose]() {
      for (const { w, overlay } of applied.splice(0)) {
        w.overlays.splice(w.overlays.indexOf(overlay), 1);
        freeTensor(gpu, overlay.left);
        freeTensor(gpu, overlay.right);
      }
    },
  };
}
