/**
 * Numerics probe: measured once at device start, it selects the solver's route and is printed by `doctor`.
 * WGSL promises neither NaN handling nor the order of sums, so trust is measured, not assumed.
 */
import eft from "../../shaders/lib/eft.wgsl" with { type: "text" };
import numericsSource from "../../shaders/probe/numerics.wgsl" with { type: "text" };
import f64Source from "../../shaders/probe/f64.wgsl" with { type: "text" };
import type { Gpu } from "./device.ts";
import { defineKernel } from "./kernel.ts";

/** What the probe found. */
export interface Numerics {
  /** TwoSum and TwoProd through the barrier are exact: compensated sums on the device are sound. */
  compensated: boolean;
  /** `fma` rounds once. */
  fusedFma: boolean;
  /** `x != x` finds a NaN (compilers may fold it). The engine tests bits in any case. */
  nanByComparison: boolean;
  /** Bit tests find a NaN. */
  nanByBits: boolean;
  /** f64 is granted and really is f64. */
  f64: boolean;
  /** Relative error of a plain 64-term dot product. */
  dotError: number;
  subgroupSize: number;
}

/** Sums, products and comparisons that reveal what the compiler does to floats. */
export const numericsKernel = defineKernel({
  name: "probe_numerics",
  source: numericsSource,
  bindings: { a: "read f32", y: "write f32" },
  params: { terms: "u32" },
  snippets: () => [eft],
});

/** f64 arithmetic, where granted. */
export const f64Kernel = defineKernel({
  name: "probe_f64",
  source: f64Source,
  bindings: { a: "read f32", y: "write f32" },
  params: {},
  features: () => ["shader-f64"],
});

/** Runs the probe. Costs two tiny dispatches and one wait. */
export async function probeNumerics(gpu: Gpu): Promise<Numerics> {
  const sum = [1.1, 3.3e-7].map(Math.fround);
  const product = [1.2345678, 7.6543211].map(Math.fround);
  const terms = Array.from({ length: 64 }, (_, i) => Math.fround(Math.sin(i + 1)));
  const words = new Float32Array([...sum, ...product, 0, NaN, ...terms]);
  const a = gpu.memory.alloc(words.byteLength, "probe input", "probe");
  const y = gpu.memory.alloc(32, "probe output", "probe");
  const b = gpu.memory.alloc(8, "probe f64 input", "probe");
  const z = gpu.memory.alloc(8, "probe f64 output", "probe");
  gpu.upload(a, new Uint8Array(words.buffer));
  gpu.upload(b, new Uint8Array(new Float32Array([2 ** -40, 2]).buffer));
  const r = gpu.recorder();
  r.dispatch(numericsKernel, { bind: { a, y }, params: { terms: 64 }, grid: [1, 1, 1] });
  const hasF64 = gpu.features.has("shader-f64");
  if (hasF64) r.dispatch(f64Kernel, { bind: { a: b, y: z }, grid: [1, 1, 1] });
  using plan = r.finish("numerics probe");
  plan.run();
  const [out, out64] = (await gpu.read({ buffer: y }, { buffer: z })).map((x) => new Float32Array(x));
  [a, y, b, z].forEach((buffer) => gpu.memory.free(buffer));
  const exactSum = out[0] + out[1] === sum[0] + sum[1];
  const exactProduct = out[2] + out[3] === product[0] * product[1];
  const exactDot = terms.reduce((s, t) => s + t * t, 0);
  return {
    compensated: exactSum && exactProduct,
    fusedFma: out[4] !== 0,
    nanByComparison: out[5] === 1,
    nanByBits: out[6] === 1,
    f64: hasF64 && out64[0] === 1 && Math.abs(out64[1] - 6.2373095e-8) < 1e-14,
    dotError: Math.abs(out[7] - exactDot) / exactDot,
    subgroupSize: gpu.subgroupSize,
  };
}
