/**
 * Wide numbers on the device: f64, or two-float pairs of f32 where there is none. Host arrays go in and come
 * out as f64; products of any orientation are recorded here.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer, Storage } from "../gpu/memory.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { type Wide, wideProduct } from "../kernels/linalg_wide.ts";
import { zeroBuffer } from "./buffers.ts";
import { TILE } from "./panels.ts";

/** Bytes of a wide number. */
export const WIDE_BYTES = 8;

/** The numbers a device has. @throws {GpuError} when it has neither f64 nor sound error-free transformations */
export function wideOf(gpu: Gpu, route: "auto" | "f64" | "compensated" = "auto"): Wide {
  const { f64, compensated } = gpu.numerics;
  if (route === "f64" && !f64) {
    throw new GpuError("Cannot compute in f64: the device has no f64", 'Use the route "compensated"');
  }
  if (f64 && route !== "compensated") return "f64";
  if (compensated) return "twoFloat";
  throw new GpuError(
    "Cannot compute in two-float numbers: this device's compiler breaks error-free transformations",
    'Use the route "host"',
  );
}

/** Host f64 numbers as the device stores them. */
export function encodeWide(values: Float64Array, wide: Wide): Uint8Array {
  if (wide === "f64") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const pairs = new Float32Array(2 * values.length);
  for (let i = 0; i < values.length; i++) {
    pairs[2 * i] = values[i];
    pairs[2 * i + 1] = values[i] - pairs[2 * i];
  }
  return new Uint8Array(pairs.buffer);
}

/** The inverse of {@link encodeWide}. */
export function decodeWide(bytes: ArrayBuffer, wide: Wide): Float64Array {
  if (wide === "f64") return new Float64Array(bytes);
  const pairs = new Float32Array(bytes);
  return Float64Array.from({ length: pairs.length / 2 }, (_, i) => pairs[2 * i] + pairs[2 * i + 1]);
}

/** A new buffer of wide numbers, content zero, to be freed by the caller. */
export function allocWide(gpu: Gpu, label: string, count: number): GpuBuffer {
  return gpu.memory.alloc(count * WIDE_BYTES, label, "linalg");
}

/** The binding that only two-float kernels have: see eft.wgsl. */
export function secretZero(gpu: Gpu, wide: Wide): Record<string, Storage> {
  return wide === "f64" ? {} : { zero: zeroBuffer(gpu) };
}

/** One factor of a product: element (k, i) at offset + k·step + i·lane. */
export interface Operand {
  storage: Storage;
  offset?: number;
  step: number;
  lane: number;
}

/** Where a product goes: rows × columns of a buffer whose row 0 is `panelRow`, `ld` numbers a row. */
export interface Target {
  storage: Storage;
  ld: number;
  rows: readonly [begin: number, end: number];
  cols: readonly [begin: number, end: number];
  panelRow?: number;
  /** Only tiles that touch the lower triangle; the diagonal is at row = column, both from `cols[0]` on. */
  lower?: boolean;
  subtract?: boolean;
}

/** Records C = Σ_k A(k, i) B(k, j) over k < K, or C -= that. */
export function recordProduct(r: Recorder, wide: Wide, a: Operand, b: Operand, K: number, to: Target): void {
  const { rows: [rowBegin, rowEnd], cols: [colBegin, colEnd], lower = false, subtract = false } = to;
  if (rowBegin >= rowEnd || colBegin >= colEnd) return;
  const tiles = Math.ceil((rowEnd - rowBegin) / TILE);
  const first = lower ? (rowBegin - colBegin) / TILE : 0;
  r.dispatch(wideProduct[wide], {
    variant: { BLOCK: r.gpu.class === "cpu" && wide === "f64" ? 8 : 4, SUBTRACT: subtract },
    bind: { a: a.storage, b: b.storage, c: to.storage, ...secretZero(r.gpu, wide) },
    params: {
      K,
      aOffset: a.offset ?? 0,
      aStep: a.step,
      aLane: a.lane,
      bOffset: b.offset ?? 0,
      bStep: b.step,
      bLane: b.lane,
      rowBegin,
      rowEnd,
      colBegin,
      colEnd,
      panelRow: to.panelRow ?? 0,
      panelLd: to.ld,
      tri: lower ? 1 : 0,
      first,
    },
    grid: lower
      ? [tiles * first + tiles * (tiles + 1) / 2, 1, 1]
      : [tiles, Math.ceil((colEnd - colBegin) / TILE), 1],
  });
}
