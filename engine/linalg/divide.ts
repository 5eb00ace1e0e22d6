/**
 * Eigenvalues and eigenvectors of a symmetric tridiagonal matrix by divide and conquer, in host f64 (Cuppen
 * 1981; deflation as in LAPACK's dlaed2; vectors after Gu & Eisenstat 1994, so that they are orthogonal to
 * working precision without extended arithmetic). Most of the work is products, and the last ones are made
 * for the wanted vectors only.
 */
import { multiplyRows } from "./host_product.ts";
import { tridiagonalQl } from "./ql.ts";
import { secularRoot } from "./secular.ts";

/** Below this size the QL iteration is faster. */
const LEAF = 32;

/** Eigenvalues ascending and eigenvectors as rows. */
export interface Eigen {
  values: Float64Array;
  /** Row i, n numbers long, belongs to the i-th of the eigenvalues asked for. */
  vectors: Float64Array;
}

/**
 * Decomposes T with the given diagonal and the n − 1 numbers beside it. All eigenvalues, and the eigenvectors
 * of those in [first, end) of the ascending order.
 * @param wanted chooses the range once the eigenvalues are known; default all
 */
export function tridiagonalEigen(
  diagonal: Float64Array,
  beside: Float64Array,
  wanted: (values: Float64Array) => readonly [first: number, end: number] = (v) => [0, v.length],
): Eigen {
  const n = diagonal.length;
  let most = 0;
  for (const v of diagonal) most = Math.max(most, Math.abs(v));
  for (const v of beside) most = Math.max(most, Math.abs(v));
  const unit = most > 0 ? most : 1;
  const d = diagonal.map((v) => v / unit);
  const e = beside.map((v) => v / unit);
  const select = (values: Float64Array) => wanted(values.map((v) => v * unit));
  const { values, vectors } = solve(d, e, 0, n, select);
  return { values: values.map((v) => v * unit), vectors };
}

type Select = (values: Float64Array) => readonly [number, number];

function solve(d: Float64Array, e: Float64Array, start: number, end: number, select?: Select): Eigen {
  const n = end - start;
  if (n <= LEAF) {
    const all = tridiagonalQl(d.slice(start, end), e.slice(start, end - 1));
    if (!select) return all;
    const [first, last] = select(all.values);
    return { values: all.values, vectors: all.vectors.slice(first * n, last * n) };
  }
  const middle = start + (n >> 1);
  const beta = e[middle - 1];
  const rho = Math.abs(beta);
  d[middle - 1] -= rho;
  d[middle] -= rho;
  const top = solve(d, e, start, middle);
  const bottom = solve(d, e, middle, end);
  return merge(top, bottom, rho, beta < 0 ? -1 : 1, select);
}

/** Where the non-zero elements of an old eigenvector are: bits, since a rotation may join both halves. */
const TOP = 1, BOTTOM = 2;

/** Joins the halves of T = diag(T₁, T₂) + ρ u uᵀ, u = (… 0, 1, sign, 0 …). */
function merge(top: Eigen, bottom: Eigen, rho: number, sign: number, select?: Select): Eigen {
  const n1 = top.values.length, n2 = bottom.values.length, n = n1 + n2;
  const values = new Float64Array(n);
  values.set(top.values);
  values.set(bottom.values, n1);
  const z = new Float64Array(n);
  for (let k = 0; k < n1; k++) z[k] = top.vectors[k * n1 + n1 - 1] / Math.SQRT2;
  for (let k = 0; k < n2; k++) z[n1 + k] = sign * bottom.vectors[k * n2] / Math.SQRT2;
  // Row k of an old vector: its top half and its bottom half, either of which may be absent.
  const rows: { kind: number; top?: Float64Array; bottom?: Float64Array }[] = [];
  for (let k = 0; k < n1; k++) rows.push({ kind: TOP, top: top.vectors.subarray(k * n1, (k + 1) * n1) });
  for (let k = 0; k < n2; k++) {
    rows.push({ kind: BOTTOM, bottom: bottom.vectors.subarray(k * n2, (k + 1) * n2) });
  }
  const weight = 2 * rho;
  const order = Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
  const { live, still } = deflate(values, z, weight, order, rows, n1, n2);
  // The poles that moved, and the eigenvalues that stayed.
  const K = live.length;
  const poles = Float64Array.from(live, (k) => values[k]);
  const zs = Float64Array.from(live, (k) => z[k]);
  const differences = new Float64Array(K * K);
  const moved = new Float64Array(K);
  for (let k = 0; k < K; k++) {
    moved[k] = secularRoot(k, poles, zs, weight, differences.subarray(k * K, (k + 1) * K));
  }
  const all = [
    ...live.map((_, k) => ({ value: moved[k], root: k, old: -1 })),
    ...still.map((k) => ({ value: values[k], root: -1, old: k })),
  ].sort((a, b) => a.value - b.value || a.root - b.root || a.old - b.old);
  const sorted = Float64Array.from(all, ({ value }) => value);
  const [first, end] = select?.(sorted) ?? [0, n];
  const chosen = all.slice(first, end);
  const vectors = new Float64Array(chosen.length * n);
  chosen.forEach(({ old }, at) => {
    if (old < 0) return;
    const row = rows[old];
    if (row.top) vectors.set(row.top, at * n);
    if (row.bottom) vectors.set(row.bottom, at * n + n1);
  });
  const roots = chosen.map(({ root }, at) => ({ root, at })).filter(({ root }) => root >= 0);
  const weights = innerVectors(poles, zs, differences, roots.map(({ root }) => root));
  for (const [mask, offset, length] of [[TOP, 0, n1], [BOTTOM, n1, n2]] as const) {
    const used = live.map((k, i) => ({ row: rows[k], i })).filter(({ row }) => row.kind & mask);
    const old = used.map(({ row }) => (mask === TOP ? row.top : row.bottom)!);
    const columns = used.map(({ i }) => i);
    multiplyRows(weights, K, columns, old, length, vectors, roots.map(({ at }) => at * n + offset));
  }
  return { values: sorted, vectors };
}

/**
 * Sets aside eigenvalues that the rank-one matrix does not move: those whose z is negligible, and one of each
 * pair so close that a rotation makes its z negligible. Rotates `rows`; both lists ascend but for rotations.
 */
function deflate(
  values: Float64Array,
  z: Float64Array,
  rho: number,
  order: number[],
  rows: { kind: number; top?: Float64Array; bottom?: Float64Array }[],
  n1: number,
  n2: number,
): { live: number[]; still: number[] } {
  const size = Math.max(...[values, z].map((v) => v.reduce((s, x) => Math.max(s, Math.abs(x)), 0)));
  const tolerance = 8 * Number.EPSILON * size;
  const live: number[] = [];
  const still: number[] = [];
  let before = -1;
  for (const k of order) {
    if (rho * Math.abs(z[k]) <= tolerance) {
      still.push(k);
      continue;
    }
    if (before >= 0) {
      const length = Math.hypot(z[before], z[k]);
      const c = z[k] / length, s = -z[before] / length;
      const apart = values[k] - values[before];
      if (Math.abs(apart * c * s) <= tolerance) {
        z[k] = length;
        z[before] = 0;
        rotate(rows[before], rows[k], c, s, n1, n2);
        const [a, b] = [values[before], values[k]];
        values[before] = a * c * c + b * s * s;
        values[k] = a * s * s + b * c * c;
        still.push(before);
        before = k;
        continue;
      }
      live.push(before);
    }
    before = k;
  }
  if (before >= 0) live.push(before);
  return { live, still };
}

/** (x, y) := (c x + s y, c y − s x) for two old vectors, which then reach where either did. */
function rotate(
  x: { kind: number; top?: Float64Array; bottom?: Float64Array },
  y: { kind: number; top?: Float64Array; bottom?: Float64Array },
  c: number,
  s: number,
  n1: number,
  n2: number,
): void {
  const kind = x.kind | y.kind;
  for (const row of [x, y]) {
    row.kind = kind;
    if (kind & TOP) row.top ??= new Float64Array(n1);
    if (kind & BOTTOM) row.bottom ??= new Float64Array(n2);
  }
  for (const half of ["top", "bottom"] as const) {
    const [a, b] = [x[half], y[half]];
    if (!a || !b) continue;
    for (let i = 0; i < a.length; i++) {
      const [p, q] = [a[i], b[i]];
      a[i] = c * p + s * q;
      b[i] = c * q - s * p;
    }
  }
}

/**
 * Unit eigenvectors of D + ρ ẑ ẑᵀ as rows, ẑ being the vector for which the computed roots are exact (Löwner's
 * formula; dlaed3). `differences[k, j]` = d_j − λ_k.
 */
function innerVectors(
  d: Float64Array,
  z: Float64Array,
  differences: Float64Array,
  wanted: number[],
): Float64Array {
  const K = d.length;
  const exact = new Float64Array(K);
  for (let i = 0; i < K; i++) {
    let product = differences[i * K + i];
    for (let k = 0; k < K; k++) if (k !== i) product *= differences[k * K + i] / (d[i] - d[k]);
    exact[i] = Math.sqrt(Math.max(0, -product)) * Math.sign(z[i]);
  }
  const vectors = new Float64Array(wanted.length * K);
  wanted.forEach((k, at) => {
    let ss = 0;
    for (let j = 0; j < K; j++) {
      const v = vectors[at * K + j] = exact[j] / differences[k * K + j];
      ss += v * v;
    }
    const scale = 1 / Math.sqrt(ss);
    for (let j = 0; j < K; j++) vectors[at * K + j] *= scale;
  });
  return vectors;
}
