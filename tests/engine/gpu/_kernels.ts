/** Small kernels for the tests of the compute runtime, and how to run them. */
import type { Gpu } from "../../../engine/gpu/device.ts";
import { defineKernel } from "../../../engine/gpu/kernel.ts";
import type { GpuBuffer, Storage } from "../../../engine/gpu/memory.ts";
import type { Recorder } from "../../../engine/gpu/recorder.ts";

const each = (line: string) =>
  `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.n) { ${line} }
}`;

/** y = value. */
export const fill = defineKernel({
  name: "test_fill",
  source: each("y[id.x] = p.value;"),
  bindings: { y: "write u32" },
  params: { n: "u32", value: "u32" },
});

/** y += value. */
export const increase = defineKernel({
  name: "test_increase",
  source: each("y[id.x] += p.value;"),
  bindings: { y: "update u32" },
  params: { n: "u32", value: "u32" },
});

/** y = a + b. */
export const sum = defineKernel({
  name: "test_sum",
  source: each("y[id.x] = a[id.x] + b[id.x];"),
  bindings: { a: "read u32", b: "read u32", y: "write u32" },
  params: { n: "u32" },
});

/** Records `fill`. */
export function recordFill(r: Recorder, y: Storage, value: number, n = y.bytes / 4): void {
  r.dispatch(fill, { bind: { y }, params: { n, value }, grid: [Math.ceil(n / 64), 1, 1] });
}

/** Records `increase`. */
export function recordIncrease(r: Recorder, y: Storage, value: number, n = y.bytes / 4): void {
  r.dispatch(increase, { bind: { y }, params: { n, value }, grid: [Math.ceil(n / 64), 1, 1] });
}

/** Records `sum`. */
export function recordSum(r: Recorder, a: Storage, b: Storage, y: Storage, n = y.bytes / 4): void {
  r.dispatch(sum, { bind: { a, b, y }, params: { n }, grid: [Math.ceil(n / 64), 1, 1] });
}

/** Reads words of a buffer. */
export async function words(gpu: Gpu, buffer: GpuBuffer): Promise<Uint32Array> {
  return new Uint32Array((await gpu.read({ buffer }))[0]);
}
