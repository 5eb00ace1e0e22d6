/**
 * What the solvers accept as a matrix, and the part that all routes share: reading the diagonal, choosing
 * the shift from the trace, and scaling by powers of two so that the diagonal is near 1.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { diagonal as diagonalKernel, type Real } from "../kernels/linalg.ts";
import { describe, type Tensor } from "../tensor/tensor.ts";
import { PivotError } from "./host.ts";
import { realBytes, type RowBlock } from "./panels.ts";

/** A symmetric matrix on the device, C = weight · (stored + low words); its lower triangle is read. */
export interface SpdMatrix {
  readonly n: number;
  readonly real: Real;
  readonly weight: number;
  readonly blocks: readonly RowBlock[];
}

/** A matrix to factor with the name and options of its caller. */
export interface System {
  name: string;
  matrix: SpdMatrix;
  jitter: number;
  maxShardBytes?: number;
}

/** A dense tensor as a matrix. @throws {GpuError} for other dtypes than f32 and f64 */
export function tensorMatrix(C: Tensor, lo?: Tensor): SpdMatrix {
  const { dtype } = C;
  if (dtype !== "f32" && dtype !== "f64") {
    throw new GpuError(`Cannot factor ${describe(C)} of dtype ${dtype}`);
  }
  if (C.shards.some((s) => s.storage.kind === "virtual")) {
    throw new GpuError(
      `Cannot factor ${describe(C)}: it is a temporary of a plan, which has no memory of its own`,
    );
  }
  const n = C.shape[0];
  if (
    lo && (lo.dtype !== "f32" || dtype !== "f32" || lo.shards.length !== C.shards.length || lo.shape[0] !== n)
  ) {
    throw new GpuError(
      `Cannot take ${describe(lo)} as low words of ${describe(C)}: both must be f32, alike in shards`,
    );
  }
  const blocks = C.shards.map((s, i) => ({ ...s, lo: lo?.shards[i].storage, ld: n }));
  return { n, real: dtype, weight: 1, blocks };
}

/** Records y[i] = C[i, i] of the stored words, or of the low words. */
export function recordDiagonal(
  r: Recorder,
  { n, real, blocks }: Pick<SpdMatrix, "n" | "real" | "blocks">,
  y: GpuBuffer,
  lowWords = false,
): void {
  for (const block of blocks) {
    const rowEnd = Math.min(n, block.row + block.rows);
    r.dispatch(diagonalKernel[real], {
      bind: { src: lowWords ? block.lo! : block.storage, y },
      params: { rowBegin: block.row, rowEnd, srcRow: block.row, srcLd: block.ld },
      grid: [Math.ceil((rowEnd - block.row) / 64), 1, 1],
    });
  }
}

/** Reads the stored diagonal, low words added in f64. One wait. */
export async function readDiagonal(gpu: Gpu, matrix: SpdMatrix): Promise<Float64Array> {
  const { n, real, blocks } = matrix;
  const bytes = n * realBytes(real);
  const low = blocks.some((b) => b.lo);
  const buffers = [false, ...(low ? [true] : [])].map((lowWords) => {
    const buffer = gpu.memory.alloc(bytes, "diagonal", "linalg");
    return { buffer, bytes, lowWords };
  });
  const r = gpu.recorder();
  buffers.forEach(({ buffer, lowWords }) => recordDiagonal(r, matrix, buffer, lowWords));
  using plan = r.finish("diagonal");
  plan.run();
  const parts = await gpu.read(...buffers);
  buffers.forEach(({ buffer }) => gpu.memory.free(buffer));
  const values = parts.map((part) => real === "f64" ? new Float64Array(part) : new Float32Array(part));
  return Float64Array.from({ length: n }, (_, i) => values[0][i] + (low ? values[1][i] : 0));
}

/** The regularised system in the units of the stored matrix. */
export interface Regularised {
  /** Stored diagonal plus shift/weight, exact to f64. */
  diagonal: Float64Array;
  /** ρ·tr(C)/n in the units of C. */
  shift: number;
  /** s_i = 2^−round(log₂ √a_ii), so that s_i² a_ii lies in [1/2, 2). */
  scale: Float32Array;
}

/** Chooses shift and scale. @throws {PivotError} when a diagonal element is not positive */
export function regularise({ name, matrix, jitter }: System, stored: Float64Array): Regularised {
  const { n, weight } = matrix;
  const add = jitter * stored.reduce((sum, v) => sum + v, 0) / n;
  const diagonal = stored.map((v) => v + add);
  const scale = new Float32Array(n);
  diagonal.forEach((v, i) => {
    const exponent = -Math.round(Math.log2(v) / 2);
    if (!(v > 0 && v < Infinity) || Math.abs(exponent) > 126) {
      throw new PivotError(name, n, i, v * weight, jitter);
    }
    scale[i] = 2 ** exponent;
  });
  return { diagonal, shift: add * weight, scale };
}

/** Pads a vector with ones: the padding of a factor is the identity. */
export function padOnes<T extends Float32Array | Float64Array>(values: T, padded: number): T {
  const out = new (values.constructor as new (n: number) => T)(padded);
  out.fill(1);
  out.set(values);
  return out;
}

/** Lower bound of a condition number from the diagonal of a scaled factor. */
export function conditionFrom(factorDiagonal: ArrayLike<number>, scale: ArrayLike<number>): number {
  let least = Infinity, most = 0;
  for (let i = 0; i < scale.length; i++) {
    const v = factorDiagonal[i] / scale[i];
    least = Math.min(least, v);
    most = Math.max(most, v);
  }
  return (most / least) ** 2;
}

/** Checks right-hand sides, copies them to f64. @throws {GpuError} on a wrong length, a value not finite */
export function checkColumns(name: string, n: number, b: ArrayLike<number>, m: number): Float64Array {
  if (b.length !== n * m) {
    throw new GpuError(
      `Cannot solve with ${name} [${n}, ${n}]: ${m} right-hand sides have ${n * m} values, not ${b.length}`,
    );
  }
  const columns = Float64Array.from(b);
  const bad = columns.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) {
    throw new GpuError(
      `Cannot solve with ${name}: right-hand side ${Math.floor(bad / n)} has ${b[bad]} at ${bad % n}`,
    );
  }
  return columns;
}

/** Multiplies every column elementwise by s and a number. */
export function scaleColumns(columns: Float64Array, s: ArrayLike<number>, factor = 1): Float64Array {
  const n = s.length;
  return columns.map((v, i) => v * s[i % n] * factor);
}
