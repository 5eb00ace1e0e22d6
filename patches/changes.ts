/**
 * W' = W + Σ ΔW on the host, one piece of a tensor at a time: sums in f64, rounded once to the tensor's own
 * dtype. What comes out is measured on the way.
 */
import type { Checkpoint, WeightInfo, WeightPiece } from "../engine/io/checkpoint.ts";
import { fromFloat32, toFloat32 } from "../engine/io/convert.ts";
import { DTYPE_BYTES, findNonFinite } from "../engine/io/dtypes.ts";
import { InputError, show } from "../engine/io/errors.ts";
import type { LowRankDelta, TensorDelta } from "./patch.ts";

/** What happened to one tensor. */
export interface TensorChange {
  /** The name in the checkpoint. */
  tensor: string;
  /** As stored. */
  shape: number[];
  /** Ranks of all its deltas, at most what the shape allows; a dense delta has all of them. */
  rank: number;
  /** ‖ΔW‖ */
  frobenius: number;
  /** ‖ΔW‖ / ‖W‖ */
  relative: number;
  /** What rounding to the tensor's dtype left of it: ‖(W' − W) − ΔW‖ / ‖ΔW‖. */
  realised: { error: number };
}

/** The deltas of one tensor, checked against it. */
export interface PlannedChange {
  info: WeightInfo;
  rank: number;
  /** Adds ΔW's elements from `first` on, in stored order, to `into`. */
  adders: ((into: Float64Array, first: number) => void)[];
}

/**
 * Finds the tensors that deltas change; several deltas may change one tensor (a stack of patches).
 * @returns by name in the checkpoint
 * @throws {InputError} when the checkpoint lacks a tensor or has it in another shape
 */
export function planChanges(
  checkpoint: Checkpoint,
  deltas: readonly TensorDelta[],
): Map<string, PlannedChange> {
  const planned = new Map<string, PlannedChange>();
  for (const delta of deltas) {
    const info = findTensor(checkpoint, delta.tensor);
    const { shape } = info;
    const [rows, cols] = shape.length > 1 ? shape : [1, shape[0]];
    const expected = storedShape(delta);
    if (expected.join() !== shape.join()) {
      throw new InputError(
        `The change of ${show(info.name)} is [${expected.join(", ")}]; ${checkpoint.path} has it as ` +
          `[${shape.join(", ")}]`,
      );
    }
    const change = planned.get(info.name) ?? { info, rank: 0, adders: [] };
    planned.set(info.name, change);
    const most = Math.min(rows, cols);
    change.rank = Math.min(most, change.rank + (delta.kind === "dense" ? most : delta.ranks.length));
    change.adders.push(adderOf(delta));
  }
  return planned;
}

/** The bytes of W' in pieces, from the pieces of W; returns what changed. */
export async function* changedPieces(
  pieces: AsyncIterable<WeightPiece>,
  { info, rank, adders }: PlannedChange,
): AsyncGenerator<Uint8Array, TensorChange> {
  const { name: tensor, dtype, shape } = info;
  let base2 = 0, delta2 = 0, error2 = 0;
  for await (const { byteOffset, bytes } of pieces) {
    const base = toFloat32(dtype, bytes);
    const delta = new Float64Array(base.length);
    for (const add of adders) add(delta, byteOffset / DTYPE_BYTES[dtype]);
    const changed = fromFloat32(dtype, base.map((w, i) => w + delta[i]));
    if (findNonFinite({ dtype }, changed) >= 0) {
      throw new InputError(`The edit takes ${show(tensor)} out of the range of ${dtype}`);
    }
    const back = toFloat32(dtype, changed);
    for (let i = 0; i < base.length; i++) {
      base2 += base[i] ** 2;
      delta2 += delta[i] ** 2;
      error2 += (back[i] - base[i] - delta[i]) ** 2;
    }
    yield changed;
  }
  const frobenius = Math.sqrt(delta2);
  const realised = { error: ratio(Math.sqrt(error2), frobenius) };
  return { tensor, shape, rank, frobenius, relative: ratio(frobenius, Math.sqrt(base2)), realised };
}

/**
 * What deltas would change, without writing anything: one pass over the changed tensors.
 * @throws {InputError} as {@link planChanges}
 */
export async function measureChanges(
  checkpoint: Checkpoint,
  deltas: readonly TensorDelta[],
): Promise<TensorChange[]> {
  const changes: TensorChange[] = [];
  for (const change of planChanges(checkpoint, deltas).values()) {
    const pieces = changedPieces(checkpoint.pieces(change.info.name), change);
    let next = await pieces.next();
    while (!next.done) next = await pieces.next();
    changes.push(next.value);
  }
  return changes;
}

/**
 * The checkpoint's own name and shape of a tensor.
 * @throws {InputError} when it has none of that name
 */
export function findTensor(checkpoint: Checkpoint, name: string): WeightInfo {
  const { weights, path, config } = checkpoint;
  // GPT-2 checkpoints come with and without the prefix.
  const info = weights.get(name) ?? weights.get(name.replace(/^transformer\./, ""));
  if (info !== undefined) return info;
  if (name === "lm_head.weight" && config.tie_word_embeddings !== false) {
    throw new InputError(
      `The head of ${path} is its embedding, so a change of the head alone cannot be saved in it`,
      {
        hint: "Keep the change as a patch",
      },
    );
  }
  throw new InputError(`${path} has no tensor ${show(name)}`);
}

/** The shape of a change as the checkpoint stores the tensor. */
export function storedShape(delta: TensorDelta): number[] {
  if (delta.kind === "dense") return delta.shape;
  const { layout, left, right, ranks: { length: rank } } = delta;
  const shape = [left.length / rank, right.length / rank];
  return layout === "out_in" ? shape : shape.toReversed();
}

/** Adds ΔW's elements from `first` on, in stored order, to `into`. */
export function adderOf(delta: TensorDelta): PlannedChange["adders"][0] {
  return delta.kind === "dense" ? denseAdder(delta.values) : lowRankAdder(delta, storedShape(delta)[1]);
}

function denseAdder(values: Float32Array): PlannedChange["adders"][0] {
  return (into, first) => {
    for (let i = 0; i < into.length; i++) into[i] += values[first + i];
  };
}

function lowRankAdder(
  { layout, left, right, ranks: { length: rank } }: LowRankDelta,
  cols: number,
): PlannedChange["adders"][0] {
  const [byRow, byCol] = layout === "out_in" ? [left, right] : [right, left];
  // [rank, cols], so that the inner loop runs over neighbours.
  const across = new Float32Array(byCol.length);
  for (let c = 0; c < cols; c++) for (let r = 0; r < rank; r++) across[r * cols + c] = byCol[c * rank + r];
  return (into, first) => {
    for (let at = 0; at < into.length;) {
      const row = Math.floor((first + at) / cols), col = (first + at) % cols;
      const count = Math.min(cols - col, into.length - at);
      for (let r = 0; r < rank; r++) {
        const factor = byRow[row * rank + r];
        const from = r * cols + col;
        for (let i = 0; i < count; i++) into[at + i] += factor * across[from + i];
      }
      at += count;
    }
  };
}

function ratio(a: number, b: number): number {
  return b === 0 ? 0 : a / b;
}
