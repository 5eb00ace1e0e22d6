/**
 * An edit as a value: the changes of named tensors, what made them, and which base they belong to. A patch
 * lies on a loaded model over untouched weights, so taking it off brings every bit of the base back.
 */
import { basename, resolve } from "node:path";
import manifest from "../deno.json" with { type: "json" };
import { applyEdit, denseDelta, type Edit, type WeightDelta } from "../editors/edit.ts";
import type { PromptEdit } from "../editors/prompts/edit.ts";
import type { EditRequest } from "../editors/requests.ts";
import type { Checkpoint } from "../engine/io/checkpoint.ts";
import type { Addition } from "../engine/models/additions/addition.ts";
import { InputError, show } from "../engine/io/errors.ts";
import type { LoadedModel } from "../engine/models/load.ts";
import { checkpointLayout } from "../engine/models/layout.ts";
import { type Model, weight } from "../engine/models/model.ts";
import { storedTensor } from "../engine/models/replace.ts";
import type { Weight } from "../engine/ops/linear.ts";
import { sideBySide } from "./columns.ts";

export { readPatch, writePatch } from "./patch_file.ts";

/** One patch of a stack: what of the stack is its own, in the order in which it lists it. */
export interface PatchPart {
  /** As {@link Patch}'s. */
  base: { name: string };
  method: string;
  hparams: Record<string, unknown>;
  version: string;
  /** How many of the stack's requests, after those of the parts before it. */
  requests: number;
  /** Its changes: so many of the tensor's next ranks, or without `rank` the tensor's next dense change. */
  tensors: { tensor: string; rank?: number }[];
  /** How many of the stack's additions, after those of the parts before it. */
  additions?: number;
  /** Of prompts in front: how many of the stack's facts. */
  facts?: number;
}

/** ΔW = left · rightᵀ of a linear map, whatever the orientation it is stored in. */
export interface LowRankDelta {
  kind: "low-rank";
  /** The tensor's transformers name. */
  tensor: string;
  /** The map's role, for example `layer.3.mlp.down`. */
  role: string;
  /** How the checkpoint stores it: `out_in` as nn.Linear, `in_out` as GPT-2's Conv1D. */
  layout: Weight["layout"];
  /** [out, rank] row-major */
  left: Float32Array;
  /** [in, rank] row-major */
  right: Float32Array;
  /** For each rank the index of the request that it serves; null where requests share it. */
  ranks: (number | null)[];
}

/** The change of a tensor that has no low rank, in the tensor's stored shape. */
export interface DenseDelta {
  kind: "dense";
  tensor: string;
  role: string;
  /** Present for linear maps. */
  layout?: Weight["layout"];
  shape: number[];
  values: Float32Array;
}

export type TensorDelta = LowRankDelta | DenseDelta;

/** An edit: changes of weights, or prompts in front. */
export interface Patch {
  /** The model that it was made for: `Checkpoint.hash()`, and the name of its folder or file without path. */
  base: { hash: string; name: string };
  /** The config's model_type. */
  modelType: string;
  method: string;
  hparams: Record<string, unknown>;
  requests: EditRequest[];
  /**
   * One a tensor; in a stack several of one tensor where some are dense. ΔW is their sum, in this order.
   */
  deltas: TensorDelta[];
  /** What it puts beside the weights, in order. */
  additions?: Addition[];
  /** Facts that are put before prompts about them; such a patch has no deltas. See prompt_patch.ts. */
  prompts?: PromptEdit;
  /** The version of emend that made it. */
  version: string;
  /** Of a stack: its patches in order; see stack.ts. */
  parts?: PatchPart[];
}

/**
 * The patch of an edit. Deltas of one weight become one factor pair, their ranks side by side in the order in
 * which they were made.
 * @throws {InputError} when the edit changes no weight
 */
export async function patchOf(model: LoadedModel, edit: Edit): Promise<Patch> {
  const { method, hparams, requests, deltas, additions = [], prompts } = edit;
  const roles = [...new Set(deltas.map((delta) => delta.role))];
  if (roles.length === 0 && additions.length === 0 && !prompts) {
    throw new InputError(`An edit by ${method} that changes no weight cannot be saved as a patch`);
  }
  const { checkpoint } = model;
  return {
    base: { hash: await checkpoint.hash(), name: baseName(checkpoint) },
    modelType: String(checkpoint.config.model_type),
    method,
    hparams: { ...hparams },
    requests: [...requests],
    deltas: roles.flatMap((role) => {
      const parts = deltas.filter((delta) => delta.role === role);
      return [...lowRankOf(model, role, parts, requests.length), ...denseOf(model, role, parts)];
    }),
    ...(additions.length ? { additions: [...additions] } : {}),
    ...(prompts ? { prompts } : {}),
    version: manifest.version,
  };
}

function lowRankOf(model: Model, role: string, all: WeightDelta[], requests: number): LowRankDelta[] {
  const parts = all.filter(({ rank }) => rank > 0);
  if (parts.length === 0) return [];
  const w = weight(model, role);
  const left = sideBySide(parts.map(({ left, rank }) => ({ values: left, rank })));
  const right = sideBySide(parts.map(({ right, rank }) => ({ values: right, rank })));
  const ranks = requestsOfRanks(parts, requests);
  return [{ kind: "low-rank", tensor: tensorName(model, role)!, role, layout: w.layout, left, right, ranks }];
}

/** The dense parts of a role's deltas, added. */
function denseOf(model: Model, role: string, parts: WeightDelta[]): DenseDelta[] {
  const all = parts.flatMap(({ dense }) => dense ?? []);
  if (all.length === 0) return [];
  const { shape } = storedTensor(model, role);
  const values = Float32Array.from(all[0], (_, i) => all.reduce((sum, dense) => sum + dense[i], 0));
  const layout = model.weights.get(role)?.layout;
  const delta: DenseDelta = {
    kind: "dense",
    tensor: tensorName(model, role)!,
    role,
    shape: [...shape],
    values,
  };
  return [layout === undefined ? delta : { ...delta, layout }];
}

/**
 * Refuses a patch that was made for another model.
 * @param file the patch's name for the error text
 * @throws {InputError} naming both hashes
 */
export async function requireBase(
  patch: Patch,
  { checkpoint }: Pick<LoadedModel, "checkpoint">,
  file = "The patch",
): Promise<void> {
  const hash = await checkpoint.hash();
  if (hash === patch.base.hash) return;
  const made = `${patch.base.hash.slice(0, 8)}… (${patch.base.name})`;
  throw new InputError(
    `${file} was made for model ${made}; this model is ${hash.slice(0, 8)}… (${baseName(checkpoint)})`,
    { hint: "Give the model that the patch was made for with --model" },
  );
}

/**
 * Lays a patch over a model; dispose the result to take exactly this patch off again. Several patches are
 * applied one after another. Check the base first with {@link requireBase}.
 * @throws {InputError} when a tensor of the patch is none that the model runs with, or has another shape
 */
export function applyPatch(model: Model, patch: Patch): Disposable {
  const deltas = patch.deltas.map((delta) => overlayOf(model, delta));
  return applyEdit(model, { ...patch, deltas });
}

/** The folder's or file's own name: where a model lies is nobody else's business. */
export function baseName({ path }: Checkpoint): string {
  return basename(resolve(path));
}

function overlayOf(model: Model, delta: TensorDelta): WeightDelta {
  const { role, tensor } = delta;
  const w = model.weights.get(role);
  if (tensorName(model, role) !== tensor || (w === undefined && delta.kind !== "dense")) {
    throw new InputError(
      `The patch changes ${show(tensor)} (${role}), which is no weight that ${model.name} runs with`,
      { hint: "A model with such a change can be written: see emend patch apply --help" },
    );
  }
  if (delta.kind === "dense") {
    requireShape(tensor, delta.shape, [...storedTensor(model, role).shape]);
    return denseDelta(role, delta.values);
  }
  const { left, right, ranks: { length: rank } } = delta;
  requireShape(tensor, [left.length / rank, right.length / rank], [w!.out, w!.in]);
  return { role, rank, left, right };
}

/**
 * The name under which transformers has the tensor of a role, if the model has it; a tied head is stored as the
 * embedding but is not it.
 */
function tensorName(model: Model, role: string): string | undefined {
  if (role === "head" && model.config.tied) return "lm_head.weight";
  for (const entry of checkpointLayout(model.config)) {
    if (entry.role === role) return entry.name;
    if (entry.kind === "linear" && `${entry.role}.bias` === role) return entry.bias;
  }
  return undefined;
}

function requireShape(tensor: string, got: number[], expected: number[]): void {
  if (got.join() === expected.join()) return;
  throw new InputError(
    `The patch changes ${show(tensor)} as [${got.join(", ")}]; in this model it is [${expected.join(", ")}]`,
  );
}

/**
 * Whose rank is whose: one delta a request (ROME and its kin), or one delta with one rank a request (MEMIT
 * and its kin); in any other edit the ranks belong to all requests together.
 */
function requestsOfRanks(parts: WeightDelta[], requests: number): (number | null)[] {
  const shared = parts.some(({ shared }) => shared);
  if (!shared && parts.length === requests) {
    return parts.flatMap(({ rank }, i) => Array<number>(rank).fill(i));
  }
  const total = parts.reduce((sum, { rank }) => sum + rank, 0);
  return Array.from({ length: total }, (_, i) => !shared && total === requests ? i : null);
}
