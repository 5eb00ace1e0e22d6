/**
 * The one formula of the locate-and-edit family (guide, section 0):
 *
 *     dW = R (λ I + Kᵀ M K)⁻¹ (M K)ᵀ
 *
 * with M = C⁻¹ (ROME, MEMIT, PMET, EMMET), a projector (AlphaEdit) or the identity. M K comes from a factor;
 * the n×n system of n edits is solved here in host f64, or for many edits on the device.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import { freeTensor } from "../tensor/tensor.ts";
import { fromHost } from "../tensor/transfer.ts";
import { type FactorOptions, factorSpd } from "./cholesky.ts";
import { PivotError } from "./host.ts";
import { choleskyRows, gramProducts, luRows, roundings } from "./host_rows.ts";
import { TILE } from "./panels.ts";
import { allocWide, decodeWide, encodeWide, recordProduct, WIDE_BYTES, wideOf } from "./wide.ts";

/** n edits. Columns lie one after another: keys are a row-major [n, f] array, residuals [n, d]. */
export interface GramProblem {
  /** Edits. */
  n: number;
  /** K: n keys of length f. */
  keys: Float64Array | Float32Array;
  /** M K: n columns of length f. May come from other keys than K, as in original ROME (guide, 3.4). */
  mKeys: Float64Array | Float32Array;
  /** R: n wanted changes of the output, of length d. */
  residuals: Float64Array | Float32Array;
  /** λ; default 0. */
  lambda?: number;
}

/** dW = left · rightᵀ, kept as its two factors: n columns each, one after another. */
export interface LowRank {
  n: number;
  /** R (λI + KᵀMK)⁻¹: n columns of length d. */
  left: Float64Array;
  /** M K: n columns of length f. */
  right: Float64Array;
}

/** A solved problem and how it was solved. */
export interface GramSolution extends LowRank {
  /** Cholesky where the matrix is symmetric to rounding and positive definite, else LU with pivoting. */
  solver: "cholesky" | "lu";
  /** Lower bound of the condition number of λI + KᵀMK, from the pivots. */
  conditionEstimate: number;
}

/** What the system is called in errors. */
const NAME = "the Gram matrix of the keys";
const REMEDY = "Give a lambda above 0, or leave out the repeated edit";

/** Asymmetry that is rounding, relative to the diagonal: above it, M K comes from other keys or is inexact. */
const SYMMETRIC = 1e-12;

/**
 * Solves the n×n system on the host: about a second for n = 1000.
 * @throws {GpuError} when sizes do not fit, or the Gram matrix is singular (two edits share a key and λ = 0)
 */
export function gramSolve(problem: GramProblem): GramSolution {
  const { n, keys, mKeys, residuals, lambda = 0 } = problem;
  const { f, d } = sizesOf(problem);
  const gram = gramProducts(Float64Array.from(keys), Float64Array.from(mKeys), n, n, f);
  for (let i = 0; i < n; i++) gram[i * n + i] += lambda;
  const right = Float64Array.from(mKeys);
  // dW kᵢ = Σⱼ leftⱼ (M kⱼ)ᵀkᵢ = Rᵢ: rows of `left` solve the system whose right-hand sides are rows of R.
  if (isSymmetric(gram, n)) {
    const left = Float64Array.from(residuals);
    const conditionEstimate = choleskyRows(gram, n, left, d);
    if (conditionEstimate !== undefined) return { n, left, right, solver: "cholesky", conditionEstimate };
  }
  const left = Float64Array.from(residuals);
  const conditionEstimate = luRows(gram, n, left, d, NAME);
  return { n, left, right, solver: "lu", conditionEstimate };
}

/**
 * Solves the system on the device: for some thousand edits. M K must come from the same keys.
 * @throws {GpuError} when sizes do not fit, or the matrix is not positive definite
 */
export async function gramSolveOn(
  gpu: Gpu,
  problem: GramProblem,
  options: Pick<FactorOptions, "maxShardBytes"> & { route?: "auto" | "f64" | "compensated" } = {},
): Promise<GramSolution> {
  const { n, mKeys, residuals } = problem;
  const { d } = sizesOf(problem);
  const gram = await gramOnDevice(gpu, problem, options);
  const f64 = wideOf(gpu, options.route) === "f64";
  const { maxShardBytes } = options;
  const words = f64 ? [gram] : [Float32Array.from(gram), gram.map((v) => v - Math.fround(v))];
  const [C, lo] = words.map((values) =>
    fromHost(gpu, NAME, [n, n], values, { dtype: f64 ? "f64" : "f32", owner: "linalg", maxShardBytes })
  );
  try {
    const route = f64 ? "f64" : "compensated";
    using factor = await factorSpd(gpu, C, { name: NAME, route, jitter: 0, lo, maxShardBytes });
    const { conditionEstimate } = factor;
    if (!(conditionEstimate * roundings(n) < 1)) {
      throw new GpuError(
        `Cannot solve with ${NAME} [${n}, ${n}]: its condition is at least ${
          conditionEstimate.toExponential(0)
        }`,
        REMEDY,
      );
    }
    const solved = await factor.solve(transpose(residuals, n, d), d);
    const right = Float64Array.from(mKeys);
    return { n, left: transpose(solved, d, n), right, solver: "cholesky", conditionEstimate };
  } catch (error) {
    if (error instanceof PivotError) throw singular(error.column, error.pivot);
    // What the solver suggests is for statistics.
    const ours = error instanceof GpuError && error.message.startsWith(`Cannot solve with ${NAME}`);
    throw ours ? new GpuError(error.message.split("\n")[0], REMEDY) : error;
  } finally {
    [C, lo].forEach((t) => t && freeTensor(gpu, t));
  }
}

/** What a key that repeats others is told. */
export function singular(key: number, pivot: number): GpuError {
  return new GpuError(
    `Cannot solve with ${NAME}: key ${key} has the pivot ${
      pivot.toPrecision(3)
    }, so it repeats keys before it`,
    REMEDY,
  );
}

/** f and d of a problem. @throws {GpuError} when sizes do not fit */
function sizesOf({ n, keys, mKeys, residuals }: GramProblem): { f: number; d: number } {
  const f = keys.length / n;
  const d = residuals.length / n;
  if (!Number.isInteger(f) || !Number.isInteger(d) || mKeys.length !== keys.length) {
    throw new GpuError(
      `Cannot edit with ${keys.length} values of keys, ${mKeys.length} of M K and ${residuals.length} ` +
        `of residuals: they are not ${n} columns each`,
    );
  }
  return { f, d };
}

function isSymmetric(gram: Float64Array, n: number): boolean {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const size = Math.sqrt(Math.abs(gram[i * n + i] * gram[j * n + j]));
      if (!(Math.abs(gram[i * n + j] - gram[j * n + i]) <= SYMMETRIC * size)) return false;
    }
  }
  return true;
}

/** λI + KᵀMK dense, lower triangle from the device, a block of rows at a time. */
async function gramOnDevice(
  gpu: Gpu,
  { n, keys, mKeys, lambda = 0 }: GramProblem,
  { route, maxShardBytes }: { route?: "auto" | "f64" | "compensated"; maxShardBytes?: number },
): Promise<Float64Array> {
  const wide = wideOf(gpu, route);
  const f = keys.length / n;
  const limit = maxShardBytes ?? Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
  const step = Math.max(TILE, Math.floor(limit / (Math.max(n, f) * WIDE_BYTES) / TILE) * TILE);
  const gram = new Float64Array(n * n);
  const upload = (values: Float64Array | Float32Array, first: number, end: number) => {
    const buffer = allocWide(gpu, "Gram keys", (end - first) * f);
    gpu.upload(buffer, encodeWide(Float64Array.from(values.subarray(first * f, end * f)), wide));
    return buffer;
  };
  for (let i = 0; i < n; i += step) {
    const rows = Math.min(n, i + step);
    const left = upload(keys, i, rows);
    for (let j = 0; j < rows; j += step) {
      const cols = Math.min(n, j + step);
      const right = upload(mKeys, j, cols);
      const out = allocWide(gpu, "Gram block", (rows - i) * (cols - j));
      const r = gpu.recorder();
      const [a, b] = [left, right].map((storage) => ({ storage, step: 1, lane: f }));
      const to = { storage: out, ld: cols - j, rows: [0, rows - i], cols: [0, cols - j] } as const;
      recordProduct(r, wide, a, b, f, to);
      using plan = r.finish("Gram matrix");
      plan.run();
      const [raw] = await gpu.read({ buffer: out, bytes: (rows - i) * (cols - j) * WIDE_BYTES });
      const block = decodeWide(raw, wide);
      for (let x = i; x < rows; x++) {
        for (let y = j; y < Math.min(cols, x + 1); y++) {
          gram[x * n + y] = gram[y * n + x] = block[(x - i) * (cols - j) + y - j] + (x === y ? lambda : 0);
        }
      }
      [right, out].forEach((buffer) => gpu.memory.free(buffer));
    }
    gpu.memory.free(left);
  }
  return gram;
}

/** The transpose of a row-major [rows, cols] array. */
function transpose(a: ArrayLike<number>, rows: number, cols: number): Float64Array {
  const t = new Float64Array(rows * cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) t[j * rows + i] = a[i * cols + j];
  return t;
}

/** dW [d, f] row-major as a dense matrix. */
export function denseUpdate({ n, left, right }: LowRank): Float64Array {
  const d = left.length / n;
  const f = right.length / n;
  const w = new Float64Array(d * f);
  for (let e = 0; e < n; e++) {
    for (let i = 0; i < d; i++) {
      const v = left[e * d + i];
      for (let j = 0; j < f; j++) w[i * f + j] += v * right[e * f + j];
    }
  }
  return w;
}
