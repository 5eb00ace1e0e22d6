/** Host ↔ device for whole tensors. */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import {
  bytesOf,
  createTensor,
  describe,
  matrixOf,
  sizeOf,
  type Tensor,
  type TensorOptions,
} from "./tensor.ts";

/** Uploads f32 or u32 values as a new tensor. @throws {GpuError} when sizes differ */
export function fromHost(
  gpu: Gpu,
  label: string,
  shape: readonly number[],
  values: Float32Array | Uint32Array | ArrayLike<number>,
  options: TensorOptions = {},
): Tensor {
  const dtype = options.dtype ?? (values instanceof Uint32Array ? "u32" : "f32");
  if (values.length !== sizeOf(shape)) {
    throw new GpuError(`Cannot make ${label} [${shape.join(", ")}] from ${values.length} values`);
  }
  const t = createTensor(gpu, label, shape, { ...options, dtype });
  writeTensor(gpu, t, values);
  return t;
}

/** Overwrites a tensor with host values of its dtype (f32, u32 or f64). */
export function writeTensor(
  gpu: Gpu,
  t: Tensor,
  values: Float32Array | Uint32Array | Float64Array | ArrayLike<number>,
): void {
  const typed = t.dtype === "u32"
    ? (values instanceof Uint32Array ? values : Uint32Array.from(values))
    : t.dtype === "f64"
    ? (values instanceof Float64Array ? values : Float64Array.from(values))
    : t.dtype === "f32"
    ? (values instanceof Float32Array ? values : Float32Array.from(values))
    : undefined;
  if (values.length !== sizeOf(t.shape)) {
    throw new GpuError(`Cannot write ${values.length} values into ${describe(t)}`);
  }
  if (!typed) {
    throw new GpuError(`Cannot write numbers into ${describe(t)} of dtype ${t.dtype}: write its bytes`);
  }
  writeBytes(gpu, t, 0, new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength));
}

/**
 * Writes stored bytes at a byte offset of the whole tensor, across shards. Offsets in whole words.
 * @throws {GpuError} when they reach past the tensor's end
 */
export function writeBytes(gpu: Gpu, t: Tensor, byteOffset: number, bytes: Uint8Array): void {
  const total = sizeOf(t.shape) * bytesOf(t.dtype);
  if (byteOffset + bytes.byteLength > total) {
    throw new GpuError(
      `Cannot write ${bytes.byteLength} bytes at ${byteOffset} into ${describe(t)} of ${total} bytes`,
    );
  }
  const rowBytes = matrixOf(t).cols * bytesOf(t.dtype);
  for (const { storage, row, rows } of t.shards) {
    const start = row * rowBytes;
    const end = start + rows * rowBytes;
    const from = Math.max(byteOffset, start);
    const to = Math.min(byteOffset + bytes.byteLength, end);
    if (from < to) {
      gpu.upload(storage as GpuBuffer, bytes.subarray(from - byteOffset, to - byteOffset), from - start);
    }
  }
}

/** Reads several tensors with one wait: f32 → Float32Array, u32 → Uint32Array, f64 → Float64Array, packed → bytes. */
export async function readTensors<T extends Tensor[]>(gpu: Gpu, ...tensors: T): Promise<HostArray[]> {
  const wanted = tensors.flatMap((t) =>
    t.shards.map((s) => ({
      buffer: s.storage as GpuBuffer,
      bytes: s.rows * matrixOf(t).cols * bytesOf(t.dtype),
    }))
  );
  const parts = await gpu.read(...wanted);
  let at = 0;
  return tensors.map((t) => {
    const mine = parts.slice(at, at += t.shards.length);
    const bytes = sizeOf(t.shape) * bytesOf(t.dtype);
    const whole = mine.length === 1 ? mine[0].slice(0, bytes) : concat(mine, bytes);
    if (t.dtype === "u32") return new Uint32Array(whole);
    if (t.dtype === "f64") return new Float64Array(whole);
    return t.dtype === "f32" ? new Float32Array(whole) : new Uint8Array(whole);
  });
}

export type HostArray = Float32Array | Uint32Array | Float64Array | Uint8Array;

/** Reads one f32 tensor. */
export async function readF32(gpu: Gpu, t: Tensor): Promise<Float32Array> {
  if (t.dtype !== "f32") throw new GpuError(`Cannot read ${describe(t)} as f32: its dtype is ${t.dtype}`);
  return (await readTensors(gpu, t))[0] as Float32Array;
}

function concat(parts: ArrayBuffer[], bytes: number): ArrayBuffer {
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    whole.set(new Uint8Array(part).subarray(0, Math.min(part.byteLength, bytes - at)), at);
    at += part.byteLength;
  }
  return whole.buffer;
}
