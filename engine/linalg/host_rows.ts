/**
 * Dense systems in host f64 whose right-hand sides are rows: A X = B with B [n, d], so that every inner loop
 * runs along memory. Some GFLOP/s in plain TypeScript, enough for a thousand edits.
 */
import { GpuError } from "../gpu/errors.ts";

/** What rounding leaves of a pivot that should be zero, relative to the matrix: a small multiple of n·2⁻⁵². */
export function roundings(n: number): number {
  return (8 + n) * Number.EPSILON;
}

/** G[i, j] = Σ_k a[i, k] b[j, k] for rows of length f: [n, m] row-major. */
export function gramProducts(
  a: Float64Array,
  b: Float64Array,
  n: number,
  m: number,
  f: number,
): Float64Array {
  const out = new Float64Array(n * m);
  for (let i = 0; i < n; i += 2) {
    const p = i * f, q = Math.min(i + 1, n - 1) * f;
    for (let j = 0; j < m; j += 4) {
      const [r0, r1, r2, r3] = [0, 1, 2, 3].map((o) => Math.min(j + o, m - 1) * f);
      let p0 = 0, p1 = 0, p2 = 0, p3 = 0, q0 = 0, q1 = 0, q2 = 0, q3 = 0;
      for (let k = 0; k < f; k++) {
        const x = a[p + k], y = a[q + k];
        const b0 = b[r0 + k], b1 = b[r1 + k], b2 = b[r2 + k], b3 = b[r3 + k];
        p0 += x * b0;
        p1 += x * b1;
        p2 += x * b2;
        p3 += x * b3;
        q0 += y * b0;
        q1 += y * b1;
        q2 += y * b2;
        q3 += y * b3;
      }
      for (let o = 0; o < Math.min(4, m - j); o++) {
        out[i * m + j + o] = [p0, p1, p2, p3][o];
        if (i + 1 < n) out[(i + 1) * m + j + o] = [q0, q1, q2, q3][o];
      }
    }
  }
  return out;
}

/** Σ a[k] b[k] over k < count. */
export function dotProduct(a: Float64Array, b: Float64Array, count: number): number {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = 0;
  for (; k + 3 < count; k += 4) {
    s0 += a[k] * b[k];
    s1 += a[k + 1] * b[k + 1];
    s2 += a[k + 2] * b[k + 2];
    s3 += a[k + 3] * b[k + 3];
  }
  for (; k < count; k++) s0 += a[k] * b[k];
  return (s0 + s1) + (s2 + s3);
}

/** x[to…] -= Σ_k factors[k] · x[row k…] for rows of d numbers, four rows at a time. */
export function subtractRows(
  x: Float64Array,
  to: number,
  d: number,
  count: number,
  factor: (k: number) => number,
  row: (k: number) => number,
): void {
  let k = 0;
  for (; k + 3 < count; k += 4) {
    const f0 = factor(k), f1 = factor(k + 1), f2 = factor(k + 2), f3 = factor(k + 3);
    const r0 = row(k) * d, r1 = row(k + 1) * d, r2 = row(k + 2) * d, r3 = row(k + 3) * d;
    for (let c = 0; c < d; c++) {
      x[to + c] -= f0 * x[r0 + c] + f1 * x[r1 + c] + f2 * x[r2 + c] + f3 * x[r3 + c];
    }
  }
  for (; k < count; k++) {
    const f = factor(k), r = row(k) * d;
    for (let c = 0; c < d; c++) x[to + c] -= f * x[r + c];
  }
}

/**
 * Solves in place by Cholesky with the lower triangle of `a`, which it leaves alone. Returns the condition
 * estimate (squared ratio of the pivots' roots), or undefined at a pivot that is rounding noise.
 */
export function choleskyRows(a: Float64Array, n: number, x: Float64Array, d: number): number | undefined {
  const l = new Float64Array(a.length);
  let least = Infinity, most = 0;
  for (let i = 0; i < n; i++) {
    const ri = i * n;
    for (let j = 0; j <= i; j++) {
      const rj = j * n;
      const s = a[ri + j] - dotProduct(l.subarray(ri), l.subarray(rj), j);
      if (j < i) l[ri + j] = s / l[rj + j];
      else {
        if (!(s > roundings(n) * a[ri + i])) return undefined;
        l[ri + i] = Math.sqrt(s);
        least = Math.min(least, l[ri + i]);
        most = Math.max(most, l[ri + i]);
      }
    }
  }
  for (let i = 0; i < n; i++) {
    subtractRows(x, i * d, d, i, (k) => l[i * n + k], (k) => k);
    for (let c = 0; c < d; c++) x[i * d + c] /= l[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    subtractRows(x, i * d, d, n - 1 - i, (k) => l[(i + 1 + k) * n + i], (k) => i + 1 + k);
    for (let c = 0; c < d; c++) x[i * d + c] /= l[i * n + i];
  }
  return (most / least) ** 2;
}

/**
 * Solves in place by Gaussian elimination with partial pivoting; spoils `a`. Returns the ratio of the largest
 * to the smallest pivot, a rough condition estimate.
 * @throws {GpuError} when A is singular to working precision
 */
export function luRows(a: Float64Array, n: number, x: Float64Array, d: number, name: string): number {
  let size = 0;
  for (const v of a) size = Math.max(size, Math.abs(v));
  let least = Infinity, most = 0;
  for (let k = 0; k < n; k++) {
    let best = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(a[i * n + k]) > Math.abs(a[best * n + k])) best = i;
    const pivot = a[best * n + k];
    if (!(Math.abs(pivot) > roundings(n) * size)) {
      throw new GpuError(
        `Cannot solve with ${name} [${n}, ${n}]: it is singular at column ${k}`,
        "Give a lambda above 0, or leave out the repeated edit",
      );
    }
    least = Math.min(least, Math.abs(pivot));
    most = Math.max(most, Math.abs(pivot));
    if (best !== k) {
      swap(a, best * n, k * n, n);
      swap(x, best * d, k * d, d);
    }
    for (let i = k + 1; i < n; i++) {
      const f = a[i * n + k] / pivot;
      if (f === 0) continue;
      for (let j = k + 1; j < n; j++) a[i * n + j] -= f * a[k * n + j];
      for (let c = 0; c < d; c++) x[i * d + c] -= f * x[k * d + c];
    }
  }
  for (let i = n - 1; i >= 0; i--) {
    subtractRows(x, i * d, d, n - 1 - i, (k) => a[i * n + i + 1 + k], (k) => i + 1 + k);
    for (let c = 0; c < d; c++) x[i * d + c] /= a[i * n + i];
  }
  return most / least;
}

function swap(a: Float64Array, p: number, q: number, count: number): void {
  for (let i = 0; i < count; i++) [a[p + i], a[q + i]] = [a[q + i], a[p + i]];
}
