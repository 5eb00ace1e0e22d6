/**
 * A change that was made with few ranks and then rounded into a checkpoint, found again. Rounding to nearest
 * moves an element by at most half a unit in its last place, so the best approximation of the true rank is no
 * further away than that (Eckart and Young 1936); the smallest rank that is as near explains the change.
 */

/** ΔW = left · rightᵀ with left [rows, rank] and right [cols, rank]. */
export interface Factors {
  rank: number;
  left: Float32Array;
  right: Float32Array;
}

/** Rounds of orthogonal iteration; rounding noise lies far below the ranks that are looked for. */
const ROUNDS = 4;

/**
 * The factors of least rank, at most `maxRank`, within a distance of a matrix.
 * @param matrix [rows, cols]
 * @param bound on ‖matrix − left · rightᵀ‖
 */
export function factorsWithin(
  matrix: Float32Array,
  rows: number,
  cols: number,
  bound: number,
  maxRank: number,
): Factors | undefined {
  const most = Math.min(maxRank, rows, cols);
  // Columns of length `rows`, orthonormal.
  let basis: Float64Array[] = [];
  let residual = Float64Array.from(matrix);
  for (let rank = 1; rank <= most; rank++) {
    basis.push(columnOf(residual, cols, largest(residual) % cols));
    let across: Float64Array[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      basis = orthonormal(basis);
      across = basis.map((q) => timesTransposed(matrix, cols, q));
      if (round < ROUNDS - 1) basis = orthonormal(across).map((z) => times(matrix, cols, z));
    }
    residual = Float64Array.from(matrix);
    basis.forEach((q, k) => {
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < cols; c++) residual[r * cols + c] -= q[r] * across[k][c];
      }
    });
    if (norm(residual) <= bound) {
      return { rank, left: interleaved(basis, rows), right: interleaved(across, cols) };
    }
  }
  return undefined;
}

function largest(values: Float64Array): number {
  let at = 0;
  for (let i = 1; i < values.length; i++) if (Math.abs(values[i]) > Math.abs(values[at])) at = i;
  return at;
}

function columnOf(matrix: Float64Array, cols: number, column: number): Float64Array {
  return Float64Array.from({ length: matrix.length / cols }, (_, row) => matrix[row * cols + column]);
}

/** M x */
function times(matrix: Float32Array, cols: number, x: Float64Array): Float64Array {
  const out = new Float64Array(matrix.length / cols);
  for (let r = 0; r < out.length; r++) {
    let sum = 0;
    for (let c = 0; c < cols; c++) sum += matrix[r * cols + c] * x[c];
    out[r] = sum;
  }
  return out;
}

/** Mᵀ x */
function timesTransposed(matrix: Float32Array, cols: number, x: Float64Array): Float64Array {
  const out = new Float64Array(cols);
  for (let r = 0; r < x.length; r++) for (let c = 0; c < cols; c++) out[c] += matrix[r * cols + c] * x[r];
  return out;
}

/** Gram–Schmidt, twice for accuracy; a vector that depends on the others becomes zero. */
function orthonormal(vectors: Float64Array[]): Float64Array[] {
  const out: Float64Array[] = [];
  for (const vector of vectors) {
    const v = vector.slice();
    const before = norm(v);
    for (let pass = 0; pass < 2; pass++) {
      for (const q of out) {
        const dot = q.reduce((sum, x, i) => sum + x * v[i], 0);
        for (let i = 0; i < v.length; i++) v[i] -= dot * q[i];
      }
    }
    const length = norm(v);
    const scale = length > 1e-12 * before ? 1 / length : 0;
    out.push(v.map((x) => x * scale));
  }
  return out;
}

function norm(v: Float64Array): number {
  return Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
}

/** Vectors as the columns of a row-major matrix. */
function interleaved(vectors: Float64Array[], length: number): Float32Array {
  const out = new Float32Array(length * vectors.length);
  vectors.forEach((v, k) => v.forEach((x, i) => out[i * vectors.length + k] = x));
  return out;
}
