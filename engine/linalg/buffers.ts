/** Small device buffers that the solvers share. */
import type { Gpu } from "../gpu/device.ts";
import type { GpuBuffer } from "../gpu/memory.ts";

const empties = new WeakMap<Gpu, GpuBuffer>();

/** Sixteen zero bytes: bound where a variant does not use a binding, and the secret zero of eft.wgsl. */
export function emptyBuffer(gpu: Gpu): GpuBuffer {
  let buffer = empties.get(gpu);
  if (!buffer) empties.set(gpu, buffer = gpu.memory.alloc(16, "nothing", "linalg"));
  return buffer;
}

/** A new buffer with host content, to be freed by the caller. */
export function bufferFrom(gpu: Gpu, label: string, values: Float32Array | Float64Array): GpuBuffer {
  const buffer = gpu.memory.alloc(values.byteLength, label, "linalg");
  gpu.upload(buffer, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return buffer;
}
