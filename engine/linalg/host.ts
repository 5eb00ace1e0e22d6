/**
 * Dense solvers in plain TypeScript f64: the oracle of the device solvers, and what tiny systems use.
 * Columns of right-hand sides lie one after another; matrices are row-major.
 */
import { GpuError } from "../gpu/errors.ts";

/** A pivot that is not positive: the matrix is not positive definite, or not to this precision. */
export class PivotError extends GpuError {
  override name = "PivotError";
  constructor(
    readonly matrix: string,
    readonly size: number,
    readonly column: number,
    readonly pivot: number,
    readonly jitter: number,
    parameter = "jitter",
  ) {
    super(
      `Cannot factor ${matrix} [${size}, ${size}]: column ${column} has the pivot ${pivot.toPrecision(3)} ` +
        `with a jitter of ${jitter}, so the matrix is not positive definite to working precision`,
      `Use a larger ${parameter}, for example ${
        Math.max(1e-10, jitter * 100)
      }, or a statistic of more tokens`,
    );
  }

  /** The same, calling the jitter what the caller's users know it as. */
  calling(parameter: string): PivotError {
    return new PivotError(this.matrix, this.size, this.column, this.pivot, this.jitter, parameter);
  }
}

/**
 * The Cholesky factor of a symmetric matrix, in place in its lower triangle (row-oriented, Golub & Van Loan
 * 4.2.5). The upper triangle is neither read nor written. Stops at the first pivot that is not above
 * `least` and returns it; undefined means success.
 */
export function tryCholesky(
  a: Float64Array,
  n: number,
  least = 0,
): { column: number; pivot: number } | undefined {
  for (let i = 0; i < n; i++) {
    const ri = i * n;
    for (let j = 0; j < i; j++) {
      const rj = j * n;
      let s = a[ri + j];
      for (let k = 0; k < j; k++) s -= a[ri + k] * a[rj + k];
      a[ri + j] = s / a[rj + j];
    }
    let pivot = a[ri + i];
    for (let k = 0; k < i; k++) pivot -= a[ri + k] * a[ri + k];
    if (!(pivot > least) || pivot === Infinity) return { column: i, pivot };
    a[ri + i] = Math.sqrt(pivot);
  }
}

/** {@link tryCholesky} that must succeed. @throws {PivotError} at the first pivot that is not positive */
export function choleskyInPlace(a: Float64Array, n: number, name = "the matrix"): void {
  const failed = tryCholesky(a, n);
  if (failed) throw new PivotError(name, n, failed.column, failed.pivot, 0);
}

/** X of L Lᵀ X = B for m columns of length n. */
export function choleskySolve(l: Float64Array, n: number, b: ArrayLike<number>, m = 1): Float64Array {
  const x = Float64Array.from(b);
  for (let c = 0; c < m; c++) {
    const y = x.subarray(c * n, (c + 1) * n);
    for (let i = 0; i < n; i++) {
      let s = y[i];
      for (let k = 0; k < i; k++) s -= l[i * n + k] * y[k];
      y[i] = s / l[i * n + i];
    }
    for (let i = n - 1; i >= 0; i--) {
      const v = y[i] /= l[i * n + i];
      for (let k = 0; k < i; k++) y[k] -= l[i * n + k] * v;
    }
  }
  return x;
}

/** Y = A X for a symmetric matrix given by its lower triangle, m columns of length n. */
export function symmetricTimes(a: ArrayLike<number>, n: number, x: Float64Array, m = 1): Float64Array {
  const y = new Float64Array(n * m);
  for (let c = 0; c < m; c++) {
    const at = c * n;
    for (let i = 0; i < n; i++) {
      const xi = x[at + i];
      let s = a[i * n + i] * xi;
      for (let k = 0; k < i; k++) {
        const v = a[i * n + k];
        s += v * x[at + k];
        y[at + k] += v * xi;
      }
      y[at + i] += s;
    }
  }
  return y;
}

/**
 * X of A X = B by Gaussian elimination with partial pivoting, A n×n row-major, m columns of length n.
 * @throws {GpuError} when A is singular to working precision
 */
export function luSolve(
  a: ArrayLike<number>,
  n: number,
  b: ArrayLike<number>,
  m = 1,
  name = "the matrix",
): Float64Array {
  const w = Float64Array.from(a);
  const x = Float64Array.from(b);
  const scale = w.reduce((s, v) => Math.max(s, Math.abs(v)), 0);
  for (let k = 0; k < n; k++) {
    let best = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(w[i * n + k]) > Math.abs(w[best * n + k])) best = i;
    const pivot = w[best * n + k];
    if (!(Math.abs(pivot) > n * Number.EPSILON * scale)) {
      throw new GpuError(`Cannot solve with ${name} [${n}, ${n}]: it is singular at column ${k}`);
    }
    if (best !== k) {
      for (let j = 0; j < n; j++) [w[k * n + j], w[best * n + j]] = [w[best * n + j], w[k * n + j]];
      for (let c = 0; c < m; c++) [x[c * n + k], x[c * n + best]] = [x[c * n + best], x[c * n + k]];
    }
    for (let i = k + 1; i < n; i++) {
      const f = w[i * n + k] / pivot;
      if (f === 0) continue;
      for (let j = k + 1; j < n; j++) w[i * n + j] -= f * w[k * n + j];
      for (let c = 0; c < m; c++) x[c * n + i] -= f * x[c * n + k];
    }
  }
  for (let c = 0; c < m; c++) {
    const y = x.subarray(c * n, (c + 1) * n);
    for (let i = n - 1; i >= 0; i--) {
      let s = y[i];
      for (let k = i + 1; k < n; k++) s -= w[i * n + k] * y[k];
      y[i] = s / w[i * n + i];
    }
  }
  return x;
}

/**
 * Least squares min ‖A x − b‖ for m columns, A rows×cols row-major with rows ≥ cols, by Householder QR
 * (Golub & Van Loan 5.2.1). Returns m columns of length cols.
 * @throws {GpuError} when A has fewer rows than columns or dependent columns
 */
export function leastSquares(
  a: ArrayLike<number>,
  rows: number,
  cols: number,
  b: ArrayLike<number>,
  m = 1,
): Float64Array {
  if (rows < cols) {
    throw new GpuError(`Cannot solve least squares with ${rows} equations for ${cols} unknowns`);
  }
  const q = Float64Array.from(a);
  const y = Float64Array.from(b);
  const norm = Math.sqrt(q.reduce((s, v) => s + v * v, 0));
  for (let k = 0; k < cols; k++) {
    let length = 0;
    for (let i = k; i < rows; i++) length = Math.hypot(length, q[i * cols + k]);
    if (!(length > rows * Number.EPSILON * norm)) {
      throw new GpuError(`Cannot solve least squares: column ${k} of ${cols} depends on those before it`);
    }
    const alpha = q[k * cols + k] > 0 ? -length : length;
    // v = x − alpha·e₁ overwrites column k; its head and R's diagonal share a cell, so R's goes last.
    q[k * cols + k] -= alpha;
    let vv = 0;
    for (let i = k; i < rows; i++) vv += q[i * cols + k] ** 2;
    const reflect = (z: Float64Array, at: number, step: number) => {
      let s = 0;
      for (let i = k; i < rows; i++) s += q[i * cols + k] * z[at + i * step];
      s *= 2 / vv;
      for (let i = k; i < rows; i++) z[at + i * step] -= s * q[i * cols + k];
    };
    for (let j = k + 1; j < cols; j++) reflect(q, j, cols);
    for (let c = 0; c < m; c++) reflect(y, c * rows, 1);
    q[k * cols + k] = alpha;
  }
  const x = new Float64Array(cols * m);
  for (let c = 0; c < m; c++) {
    for (let i = cols - 1; i >= 0; i--) {
      let s = y[c * rows + i];
      for (let j = i + 1; j < cols; j++) s -= q[i * cols + j] * x[c * cols + j];
      x[c * cols + i] = s / q[i * cols + i];
    }
  }
  return x;
}
