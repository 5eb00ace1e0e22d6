/**
 * The one formula of the locate-and-edit family (guide, section 0):
 *
 *     dW = R (λ I + Kᵀ M K)⁻¹ (M K)ᵀ
 *
 * with M = C⁻¹ (ROME, MEMIT, PMET, EMMET), a projector (AlphaEdit) or the identity. M K comes from a factor;
 * the n×n system of n edits is solved here in host f64.
 */
import { GpuError } from "../gpu/errors.ts";
import { luSolve } from "./host.ts";

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

/**
 * Solves the n×n system by LU with pivoting, since KᵀMK is not symmetric when `mKeys` come from other keys.
 * @throws {GpuError} when sizes do not fit, or the Gram matrix is singular (two edits share a key and λ = 0)
 */
export function gramSolve({ n, keys, mKeys, residuals, lambda = 0 }: GramProblem): LowRank {
  const f = keys.length / n;
  const d = residuals.length / n;
  if (!Number.isInteger(f) || !Number.isInteger(d) || mKeys.length !== keys.length) {
    throw new GpuError(
      `Cannot edit with ${keys.length} values of keys, ${mKeys.length} of M K and ${residuals.length} ` +
        `of residuals: they are not ${n} columns each`,
    );
  }
  const gram = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      let s = i === j ? lambda : 0;
      for (let k = 0; k < f; k++) s += keys[i * f + k] * mKeys[j * f + k];
      gram[i * n + j] = s;
    }
  }
  // dW kᵢ = Σⱼ leftⱼ (M kⱼ)ᵀkᵢ = Rᵢ: one system for all outputs, whose residuals over the edits are columns.
  const outputs = transpose(residuals, n, d);
  const left = transpose(luSolve(gram, n, outputs, d, "the Gram matrix of the keys"), d, n);
  return { n, left, right: Float64Array.from(mKeys) };
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
