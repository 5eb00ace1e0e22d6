/** How much memory a device has left, where that can be known. */
import type { Gpu } from "./device.ts";

/**
 * Bytes that buffers can still get on a software driver, which takes them from the host's memory; undefined on a
 * GPU, for WebGPU does not say what it has, and where the host does not tell.
 */
export function availableMemory(gpu: Pick<Gpu, "class">): number | undefined {
  if (gpu.class !== "cpu") return undefined;
  try {
    return Deno.systemMemoryInfo().available;
  } catch {
    return undefined;
  }
}
