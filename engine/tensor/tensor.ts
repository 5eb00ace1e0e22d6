/**
 * Tensors: a shape, a dtype and the storage behind it. Row-major, dense. A big matrix is a list of row
 * shards, each within the device's binding limit; only weights, embeddings and statistics are sharded.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer, Storage } from "../gpu/memory.ts";
import type { Recorder } from "../gpu/recorder.ts";

/** Weights are f32, or f16 / bf16 packed two to a word as stored; activations are f32; ids are u32. */
export type Dtype = "f32" | "f16" | "bf16" | "u32" | "f64";

/** Rows `[row, row + rows)` of a tensor in one buffer. */
export interface Shard {
  readonly storage: Storage;
  readonly row: number;
  readonly rows: number;
}

/** A dense row-major array on the device. */
export interface Tensor {
  readonly label: string;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly shards: readonly Shard[];
}

const BYTES: Record<Dtype, number> = { f32: 4, f16: 2, bf16: 2, u32: 4, f64: 8 };

/** Bytes of one element. */
export function bytesOf(dtype: Dtype): number {
  return BYTES[dtype];
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Rows and columns of a tensor seen as a matrix: the last axis is the columns. */
export function matrixOf(t: Tensor): { rows: number; cols: number } {
  const cols = t.shape.length > 1 ? t.shape[t.shape.length - 1] : 1;
  return { rows: sizeOf(t.shape) / cols, cols };
}

/** The one buffer of an unsharded tensor. @throws {GpuError} for a sharded one */
export function storageOf(t: Tensor): Storage {
  if (t.shards.length !== 1) {
    throw new GpuError(`${describe(t)} has ${t.shards.length} row shards; one was expected`);
  }
  return t.shards[0].storage;
}

/** For error texts: `h [12, 768]`. */
export function describe(t: Tensor): string {
  return `${t.label} [${t.shape.join(", ")}]`;
}

/** Options of {@link createTensor}. */
export interface TensorOptions {
  dtype?: Dtype;
  /** Ledger group; default "tensors". */
  owner?: string;
  /** Largest shard in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
}

/** Allocates a tensor that lives until {@link freeTensor}; content zero. */
export function createTensor(
  gpu: Gpu,
  label: string,
  shape: readonly number[],
  options: TensorOptions = {},
): Tensor {
  const { dtype = "f32", owner = "tensors" } = options;
  const limit = options.maxShardBytes ??
    Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
  const rows = rowsOf(shape);
  const rowBytes = (shape.length > 1 ? shape[shape.length - 1] : 1) * BYTES[dtype];
  const total = rows * rowBytes;
  // Packed rows of odd width may not be cut inside a word: shards hold an even number of rows.
  const perShard = total <= limit ? rows : Math.floor(limit / rowBytes / 2) * 2;
  if (perShard < 1) {
    throw new GpuError(`Cannot shard ${label}: one row has ${rowBytes} bytes, the limit is ${limit}`);
  }
  const shards: Shard[] = [];
  for (let row = 0; row < rows; row += perShard) {
    const n = Math.min(perShard, rows - row);
    const name = rows > perShard ? `${label}[${row}…]` : label;
    shards.push({ storage: gpu.memory.alloc(n * rowBytes, name, owner), row, rows: n });
  }
  return { label, shape: [...shape], dtype, shards };
}

/** A temporary of a plan: memory is assigned when the plan is finished. */
export function tempTensor(
  r: Recorder,
  label: string,
  shape: readonly number[],
  dtype: Dtype = "f32",
): Tensor {
  const storage = r.temp(sizeOf(shape) * BYTES[dtype], label);
  return { label, shape: [...shape], dtype, shards: [{ storage, row: 0, rows: rowsOf(shape) }] };
}

/** Rows of a shape seen as a matrix; a vector is one element a row. */
function rowsOf(shape: readonly number[]): number {
  return shape.length > 1 ? sizeOf(shape.slice(0, -1)) : shape[0] ?? 1;
}

/** The same storage under another shape of equal size. */
export function reshape(t: Tensor, shape: readonly number[]): Tensor {
  if (sizeOf(shape) !== sizeOf(t.shape)) {
    throw new GpuError(`Cannot view ${describe(t)} as [${shape.join(", ")}]`);
  }
  return { ...t, shape: [...shape] };
}

/** Frees a tensor made by {@link createTensor}. */
export function freeTensor(gpu: Gpu, t: Tensor): void {
  for (const { storage } of t.shards) gpu.memory.free(storage as GpuBuffer);
}

/** Bytes a tensor occupies. */
export function tensorBytes(t: Tensor): number {
  return t.shards.reduce((n, s) => n + s.storage.bytes, 0);
}
