/**
 * The Gram system of a sequence of edits, λI + KᵀMK, that grows with its keys (guide, 8 and 14.12): M K and
 * the Cholesky factor of all keys so far are kept, and a batch appends its rows to the factor instead of
 * factoring anew. Once a batch is written, AlphaEdit puts the keys of the edited model in its place: truncate,
 * then append. Dropping the last keys is exact, since the leading rows of a factor do not depend on them.
 */
import { GpuError } from "../gpu/errors.ts";
import { type LowRank, singular } from "./gram.ts";
import { dotProduct, roundings, subtractRows } from "./host_rows.ts";

/** The keys of a sequence of edits on one matrix, in host f64. */
export class GrownGram {
  /** Length of a key. */
  readonly f: number;
  /** λ, on the diagonal. */
  readonly lambda: number;
  #mKeys: Float64Array[] = [];
  /** Row i of the factor, i + 1 numbers. */
  #l: Float64Array[] = [];

  constructor(f: number, lambda: number) {
    if (!(lambda >= 0)) throw new GpuError(`Cannot keep keys with a lambda of ${lambda}: it is below 0`);
    this.f = f;
    this.lambda = lambda;
  }

  /** Keys so far. */
  get n(): number {
    return this.#l.length;
  }

  /** Lower bound of the condition number, from the pivots; 1 without keys. */
  get conditionEstimate(): number {
    const pivots = this.#l.map((row, i) => row[i]);
    return pivots.length === 0 ? 1 : (Math.max(...pivots) / Math.min(...pivots)) ** 2;
  }

  /**
   * Appends m keys with their M K, both row-major [m, f]. M must be symmetric and the same for all keys. Costs
   * m·n·(f + n) multiply-adds. Nothing is appended when it throws.
   * @throws {GpuError} when sizes do not fit, or a key repeats earlier ones and λ = 0
   */
  append(keys: Float64Array | Float32Array, mKeys: Float64Array | Float32Array, m: number): void {
    const { f, n } = this;
    if (keys.length !== m * f || mKeys.length !== m * f) {
      throw new GpuError(
        `Cannot append ${m} keys of length ${f} from ${keys.length} values and ${mKeys.length} of M K`,
      );
    }
    const rowsOf = (values: Float64Array | Float32Array) =>
      Array.from({ length: m }, (_, i) => Float64Array.from(values.subarray(i * f, (i + 1) * f)));
    const [fresh, mFresh] = [rowsOf(keys), rowsOf(mKeys)];
    const all = [...this.#mKeys, ...mFresh];
    const rows: Float64Array[] = [];
    for (let i = 0; i < m; i++) {
      // The new key against all M K: a row of the matrix, then of the factor by substitution.
      const row = new Float64Array(n + i + 1);
      for (let j = 0; j <= n + i; j++) row[j] = dotProduct(fresh[i], all[j], f);
      row[n + i] += this.lambda;
      const size = row[n + i];
      for (let j = 0; j <= n + i; j++) {
        const other = j < n ? this.#l[j] : j < n + i ? rows[j - n] : row;
        const s = row[j] - dotProduct(row, other, j);
        if (j < n + i) row[j] = s / other[j];
        else if (s > roundings(n + i) * size) row[j] = Math.sqrt(s);
        else throw singular(n + i, s);
      }
      rows.push(row);
    }
    this.#mKeys.push(...mFresh);
    this.#l.push(...rows);
  }

  /** Keeps the first n keys only. */
  truncate(n: number): void {
    if (!Number.isInteger(n) || n < 0 || n > this.n) {
      throw new GpuError(`Cannot keep ${n} of ${this.n} keys`);
    }
    this.#mKeys.length = this.#l.length = n;
  }

  /**
   * The update that gives the last m keys the residuals [m, d] and earlier keys none:
   * dW = [0, R] (λI + KᵀMK)⁻¹ (M K)ᵀ over all keys.
   * @throws {GpuError} when sizes do not fit
   */
  solve(residuals: Float64Array | Float32Array, m: number): LowRank {
    const { n, f } = this;
    const d = residuals.length / m;
    if (!Number.isInteger(d) || m > n) {
      throw new GpuError(`Cannot give ${residuals.length} residuals to the last ${m} of ${n} keys`);
    }
    const left = new Float64Array(n * d);
    left.set(residuals, (n - m) * d);
    const l = this.#l;
    // The leading right-hand sides are zero, and so is what the first sweep makes of them.
    for (let i = n - m; i < n; i++) {
      subtractRows(left, i * d, d, i - (n - m), (k) => l[i][n - m + k], (k) => n - m + k);
      for (let c = 0; c < d; c++) left[i * d + c] /= l[i][i];
    }
    for (let i = n - 1; i >= 0; i--) {
      subtractRows(left, i * d, d, n - 1 - i, (k) => l[i + 1 + k][i], (k) => i + 1 + k);
      for (let c = 0; c < d; c++) left[i * d + c] /= l[i][i];
    }
    const right = new Float64Array(n * f);
    this.#mKeys.forEach((key, i) => right.set(key, i * f));
    return { n, left, right };
  }
}
