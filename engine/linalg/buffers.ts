/** Small device buffers that the solvers share. */
import type { Gpu } from "../gpu/device.ts";
import type { GpuBuffer } from "../gpu/memory.ts";

const zeros = new WeakMap<Gpu, GpuBuffer>();

/** Sixteen zero bytes that nobody writes: the secret zero of eft.wgsl, and what unused bindings get. */
export function zeroBuffer(gpu: Gpu): GpuBuffer {
  let buffer = zeros.get(gpu);
  if (!buffer) zeros.set(gpu, buffer = gpu.memory.alloc(16, "zero", "linalg"));
  return buffer;
}

/** A new buffer with host content, to be freed by the caller. */
export function bufferFrom(gpu: Gpu, label: string, values: Float32Array | Float64Array): GpuBuffer {
  const buffer = gpu.memory.alloc(values.byteLength, label, "linalg");
  gpu.upload(buffer, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return buffer;
}
