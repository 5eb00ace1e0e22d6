/** Restores a factor from the bytes of its `pack()`: seconds of factorisation become one upload. */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { SpdFactor } from "./cholesky.ts";
import { compensatedFactor } from "./compensated.ts";
import { f64Factor } from "./native.ts";
import { panelsFrom, unpackParts } from "./pack.ts";
import { hostFactor } from "./tiny.ts";

/**
 * The factor that was packed, on this device.
 * @throws {GpuError} when the bytes are no factor, or its route is "f64" and the device has no f64
 */
export function unpackFactor(
  gpu: Gpu,
  bytes: Uint8Array,
  options: { maxShardBytes?: number } = {},
): SpdFactor {
  const { facts: { route, ...facts }, parts } = unpackParts(bytes);
  const { name, n } = facts;
  const wanted = route === "compensated" ? ["scale", "rest", "l", "hi"] : ["scale", "l"];
  for (const part of wanted) {
    const size = part === "scale" || part === "rest" ? n : n * (n + 1) / 2;
    if (parts[part]?.length !== size) {
      throw new GpuError(`Cannot restore the factor of ${name}: ${part} is not ${size} numbers`);
    }
  }
  const scale = Float32Array.from(parts.scale);
  if (route === "host") {
    const l = new Float64Array(n * n);
    for (let i = 0; i < n; i++) l.set(parts.l.subarray(i * (i + 1) / 2, (i + 1) * (i + 2) / 2), i * n);
    return hostFactor(l, facts, scale);
  }
  if (route === "f64") {
    if (!gpu.numerics.f64) {
      throw new GpuError(
        `Cannot restore the f64 factor of ${name}: the device has no f64`,
        "Factor the matrix anew",
      );
    }
    return f64Factor(gpu, panelsFrom(gpu, name, n, "f64", parts.l, { ...options, padding: 1 }), facts, scale);
  }
  const l = panelsFrom(gpu, name, n, "f32", parts.l, { ...options, padding: 1 });
  const hi = panelsFrom(gpu, `${name} high`, n, "f32", parts.hi, options);
  const lo = parts.lo ? panelsFrom(gpu, `${name} low`, n, "f32", parts.lo, options) : undefined;
  const signs = Array.from(parts.signs ?? []);
  const x = Float64Array.from(parts.changed ?? []);
  if (x.length !== n * signs.length) {
    throw new GpuError(`Cannot restore the factor of ${name}: changed is not ${n * signs.length} numbers`);
  }
  return compensatedFactor(gpu, { hi, lo, rest: Float64Array.from(parts.rest), l, scale }, facts, {
    x,
    signs,
  });
}
