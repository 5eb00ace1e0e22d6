/**
 * An edit as a value: changes of named weights with what made them, low-rank ones wherever a method allows it.
 * They lie on a model as overlays on untouched base weights, a dense change in an edited copy that stands for
 * the tensor, so applying, comparing and undoing are instant and exact.
 */
import type { Addition } from "../engine/models/additions/addition.ts";
import { layAdditions } from "../engine/models/additions/lay.ts";
import { type Model, weight } from "../engine/models/model.ts";
import { changeTensor } from "../engine/models/replace.ts";
import type { Overlay } from "../engine/ops/linear.ts";
import { freeTensor } from "../engine/tensor/tensor.ts";
import { fromHost } from "../engine/tensor/transfer.ts";
import type { MemoryPart } from "./memory.ts";
import { applyPrompts } from "./prompts/apply.ts";
import type { PromptEdit } from "./prompts/edit.ts";
import type { EditRequest } from "./requests.ts";

/** ΔW = left · rightᵀ of one linear map, as a map from inputs to outputs, plus a dense part where there is one. */
export interface WeightDelta {
  /**
   * The role, for example `layer.10.mlp.down`; of a change without factors also a bias (`layer.10.mlp.down.bias`),
   * a norm or a table.
   */
  role: string;
  /** 0 for a change that is dense only. */
  rank: number;
  /** [out, rank] row-major */
  left: Float32Array;
  /** [in, rank] row-major */
  right: Float32Array;
  /** The part of no low rank: the whole tensor, in the order in which the checkpoint stores it. */
  dense?: Float32Array;
  /** True where all requests share the ranks, however many there are of either: training did not tell them apart. */
  shared?: boolean;
}

/** A change of a whole tensor. */
export function denseDelta(role: string, dense: Float32Array): WeightDelta {
  return { role, rank: 0, left: new Float32Array(0), right: new Float32Array(0), dense };
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
  /** What it puts beside the weights: slots, a codebook, a side matrix. */
  additions?: Addition[];
  /** Facts that are put before prompts about them; such an edit changes no weight. */
  prompts?: PromptEdit;
  outcomes: EditOutcome[];
  /** What the next edit of a sequence must be given back, once this one is on the model. */
  memory?: MemoryPart;
  /** What the user should know of the edit as a whole, one sentence each. */
  notes?: string[];
}

/**
 * Puts deltas on a model; dispose the result to take exactly these off again.
 * @throws {GpuError} when one does not fit the model, which then has none of them
 */
export function applyDeltas(model: Model, deltas: readonly WeightDelta[]): Disposable {
  const { gpu } = model;
  using applied = new DisposableStack();
  for (const { role, rank, left, right, dense } of deltas) {
    if (dense) applied.use(changeTensor(model, role, dense));
    if (rank === 0) continue;
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

/** Puts all of an edit on a model, weights and what leaves them alone; dispose the result to take it off again. */
export function applyEdit(
  model: Model,
  { deltas, additions = [], prompts }: Pick<Edit, "deltas" | "additions" | "prompts">,
): Disposable {
  using applied = new DisposableStack();
  applied.use(applyDeltas(model, deltas));
  applied.use(layAdditions(model, additions));
  if (prompts) applied.use(applyPrompts(model, prompts));
  return applied.move();
}
