/** Two checkpoints of one model, a base and what was made of it by whatever means: the difference as a patch. */
import manifest from "../deno.json" with { type: "json" };
import type { Checkpoint, WeightInfo } from "../engine/io/checkpoint.ts";
import { fromFloat32, toFloat32 } from "../engine/io/convert.ts";
import { findNonFinite, type WeightDtype } from "../engine/io/dtypes.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { adderOf } from "./changes.ts";
import { factorsWithin } from "./low_rank.ts";
import { type TensorName, tensorNames } from "./names.ts";
import { baseName, type Patch, type TensorDelta } from "./patch.ts";

/** A tensor that the two checkpoints have with different values. */
export interface TensorDifference {
  /** The name in patches. */
  tensor: string;
  /** As stored. */
  shape: number[];
  /** ‖ΔW‖ */
  frobenius: number;
  /** ‖ΔW‖ / ‖W‖ */
  relative: number;
  /** How many elements differ. */
  changed: number;
  /** Where one was looked for and found: the least rank that explains the change up to rounding. */
  rank?: number;
  /** With `keep`: elements that the patch, applied to the base, does not give back bit for bit. */
  inexact?: number;
}

/** What {@link diffCheckpoints} returns. */
export interface ModelDifference {
  /** Tensors that both have. */
  compared: number;
  different: TensorDifference[];
  /** Names of tensors that only one of them has, or in another shape. */
  onlyBase: string[];
  onlyOther: string[];
  /** With `keep`, where anything differs. */
  patch?: Patch;
}

export interface DiffCheckpointsOptions {
  /** Make a patch; it holds the whole difference in memory. */
  keep?: boolean;
  /** With `keep`: look for factors of at most this rank in every matrix. Default 0: every change is dense. */
  maxRank?: number;
  /** Called as elements are read. */
  onProgress?: (elements: number, total: number) => void;
}

/** Elements read at a time, about. */
const PIECE = 2 ** 20;

/**
 * Compares a checkpoint with the base that it was made from.
 * @throws {InputError} with `keep`, when they do not have the same tensors or one is not finite
 */
export async function diffCheckpoints(
  base: Checkpoint,
  other: Checkpoint,
  { keep = false, maxRank = 0, onProgress }: DiffCheckpointsOptions = {},
): Promise<ModelDifference> {
  const [ours, theirs] = [base, other].map(byName);
  const shared = [...ours].filter(([name, { info }]) =>
    theirs.get(name)?.info.shape.join() === info.shape.join()
  );
  const names = new Set(shared.map(([name]) => name));
  const [onlyBase, onlyOther] = [ours, theirs].map((map) =>
    [...map.keys()].filter((name) => !names.has(name))
  );
  if (keep && onlyBase.length + onlyOther.length > 0) {
    const name = onlyBase[0] ?? onlyOther[0];
    throw new InputError(`${other.path} is no edit of ${base.path}: they do not share ${show(name)}`);
  }
  const total = shared.reduce((sum, [, { info }]) => sum + elements(info.shape), 0);
  let done = 0;
  const different: TensorDifference[] = [], deltas: TensorDelta[] = [];
  for (const [name, { info, names }] of shared) {
    const pair: Pair = { base, other, info, otherInfo: theirs.get(name)!.info };
    const { values, changed, delta2, base2, other2 } = await readDifference(pair, keep, (count) => {
      onProgress?.(done += count, total);
    });
    if (changed === 0) continue;
    const frobenius = Math.sqrt(delta2);
    const relative = base2 === 0 ? 0 : Math.sqrt(delta2 / base2);
    const difference: TensorDifference = { tensor: name, shape: info.shape, frobenius, relative, changed };
    different.push(difference);
    if (!keep) continue;
    const unit = HALF_UNIT[pair.otherInfo.dtype];
    const bound = unit.relative * Math.sqrt(other2) + unit.absolute * Math.sqrt(values.length);
    const delta = deltaOf(values, info.shape, names, bound, maxRank);
    if (delta.kind === "low-rank") difference.rank = delta.ranks.length;
    difference.inexact = await countInexact(pair, delta);
    deltas.push(delta);
  }
  const result = { compared: shared.length, different, onlyBase, onlyOther };
  if (deltas.length === 0) return result;
  const patch: Patch = {
    base: { hash: await base.hash(), name: baseName(base) },
    modelType: String(base.config.model_type),
    method: "diff",
    hparams: {
      other: baseName(other),
      other_hash: await other.hash(),
      ...maxRank > 0 && { max_rank: maxRank },
    },
    requests: [],
    deltas,
    version: manifest.version,
  };
  return { ...result, patch };
}

/** Rounding to nearest moves a value by at most this share of it, and among subnormal values by this much. */
const HALF_UNIT: Record<WeightDtype, { relative: number; absolute: number }> = {
  F32: { relative: 2 ** -24, absolute: 0 },
  F16: { relative: 2 ** -11, absolute: 2 ** -25 },
  BF16: { relative: 2 ** -8, absolute: 0 },
};

/** One tensor of both. */
interface Pair {
  base: Checkpoint;
  other: Checkpoint;
  info: WeightInfo;
  otherInfo: WeightInfo;
}

interface Named {
  info: WeightInfo;
  names: TensorName;
}

function byName(checkpoint: Checkpoint): Map<string, Named> {
  const names = tensorNames(checkpoint);
  return new Map([...checkpoint.weights.values()].map((info) => {
    const own = names.get(info.name)!;
    return [own.tensor, { info, names: own }];
  }));
}

/** Both tensors in f32, some rows at a time. */
async function* readPair({ base, other, info, otherInfo }: Pair) {
  const [rows, ...rest] = info.shape;
  const step = Math.max(1, Math.floor(PIECE / elements(rest)));
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row);
    const read = async (checkpoint: Checkpoint, { name, dtype }: WeightInfo) => {
      const bytes = await checkpoint.rows(name, row, count);
      const at = findNonFinite({ dtype }, bytes);
      if (at >= 0) {
        throw new InputError(`${show(name)} of ${checkpoint.path} holds a value that is not finite`);
      }
      return toFloat32(dtype, bytes);
    };
    yield { first: row * elements(rest), w: await read(base, info), v: await read(other, otherInfo) };
  }
}

/** V − W, rounded to f32; empty unless kept. */
async function readDifference(pair: Pair, keep: boolean, onElements: (count: number) => void) {
  const values = new Float32Array(keep ? elements(pair.info.shape) : 0);
  let changed = 0, delta2 = 0, base2 = 0, other2 = 0;
  for await (const { first, w, v } of readPair(pair)) {
    for (let i = 0; i < w.length; i++) {
      const delta = v[i] - w[i];
      if (delta !== 0) changed++;
      delta2 += delta ** 2;
      base2 += w[i] ** 2;
      other2 += v[i] ** 2;
      if (keep) values[first + i] = delta;
    }
    onElements(w.length);
  }
  return { values, changed, delta2, base2, other2 };
}

function deltaOf(
  values: Float32Array,
  shape: number[],
  names: TensorName,
  bound: number,
  maxRank: number,
): TensorDelta {
  const { layout } = names;
  const [rows, cols] = shape;
  const factors = layout && maxRank > 0 ? factorsWithin(values, rows, cols, bound, maxRank) : undefined;
  if (layout === undefined || factors === undefined) return { kind: "dense", ...names, shape, values };
  const [left, right] = layout === "out_in" ? [factors.left, factors.right] : [factors.right, factors.left];
  return { kind: "low-rank", ...names, layout, left, right, ranks: Array(factors.rank).fill(null) };
}

/** Elements in which base and delta, summed and rounded as in an edited checkpoint, miss the other one. */
async function countInexact(pair: Pair, delta: TensorDelta): Promise<number> {
  const { dtype } = pair.info;
  const add = adderOf(delta);
  let count = 0;
  for await (const { first, w, v } of readPair(pair)) {
    const change = new Float64Array(w.length);
    add(change, first);
    const made = toFloat32(dtype, fromFloat32(dtype, w.map((x, i) => x + change[i])));
    made.forEach((x, i) => count += Number(x !== v[i]));
  }
  return count;
}

function elements(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
