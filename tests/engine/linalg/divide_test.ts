import { ok, strictEqual } from "node:assert/strict";
import { tridiagonalEigen } from "../../../engine/linalg/divide.ts";
import { secularRoot } from "../../../engine/linalg/secular.ts";
import { normals } from "../ops/_reference.ts";

/** Tridiagonal matrices as (diagonal, beside): ordinary ones and those that break careless solvers. */
const MATRICES: Record<string, (n: number) => [Float64Array, Float64Array]> = {
  random: (n) => [normals(n, 1), normals(n - 1, 2)],
  "second difference": (n) => [new Float64Array(n).fill(2), new Float64Array(n - 1).fill(-1)],
  // Wilkinson's W21 glued end to end: eigenvalues in clusters of 1e-12.
  "glued Wilkinson": (n) => [
    Float64Array.from({ length: n }, (_, i) => Math.abs(10 - i % 21)),
    Float64Array.from({ length: n - 1 }, (_, i) => i % 21 === 20 ? 1e-12 : 1),
  ],
  zero: (n) => [new Float64Array(n), new Float64Array(n - 1)],
  identity: (n) => [new Float64Array(n).fill(1), new Float64Array(n - 1)],
  graded: (n) => [
    Float64Array.from({ length: n }, (_, i) => 0.8 ** i),
    Float64Array.from({ length: n - 1 }, (_, i) => 0.4 * 0.8 ** i),
  ],
  "numerically of low rank": (n) => [
    normals(n, 3).map((v, i) => i < n / 3 ? v : 1e-18 * v),
    normals(n - 1, 4).map((v, i) => i < n / 3 ? v : 1e-18 * v),
  ],
};

/** Largest |T z − λ z| and |zᵢ·zⱼ − δ| relative to the largest number of T. */
function errors(d: Float64Array, e: Float64Array, values: Float64Array, vectors: Float64Array, first = 0) {
  const n = d.length;
  const size = Math.max(1e-300, ...d.map(Math.abs), ...e.map(Math.abs));
  const count = vectors.length / n;
  let residual = 0, orthogonality = 0;
  for (let k = 0; k < count; k++) {
    const v = vectors.subarray(k * n, (k + 1) * n);
    for (let i = 0; i < n; i++) {
      const before = i > 0 ? e[i - 1] * v[i - 1] : 0;
      const after = i < n - 1 ? e[i] * v[i + 1] : 0;
      const tz = before + d[i] * v[i] + after;
      residual = Math.max(residual, Math.abs(tz - values[first + k] * v[i]) / size);
    }
    for (let l = 0; l <= k; l++) {
      let s = l === k ? -1 : 0;
      for (let i = 0; i < n; i++) s += v[i] * vectors[l * n + i];
      orthogonality = Math.max(orthogonality, Math.abs(s));
    }
  }
  return { residual, orthogonality };
}

for (const [name, make] of Object.entries(MATRICES)) {
  Deno.test(`tridiagonalEigen() is backward stable and orthogonal when T is ${name}`, () => {
    for (const n of [1, 2, 31, 33, 64, 65, 193]) {
      const [d, e] = make(n);
      const { values, vectors } = tridiagonalEigen(d, e);
      strictEqual(vectors.length, n * n);
      ok(values.every((v, i) => i === 0 || v >= values[i - 1]), "eigenvalues ascend");
      const { residual, orthogonality } = errors(d, e, values, vectors);
      // Gu & Eisenstat bound both by a small multiple of n roundings; measured up to 12 and 35 of them.
      ok(residual <= (32 + n) * Number.EPSILON, `n=${n}: residual ${residual}`);
      ok(orthogonality <= (32 + n) * Number.EPSILON, `n=${n}: orthogonality ${orthogonality}`);
    }
  });
}

Deno.test("tridiagonalEigen() gives the eigenvalues of the second difference", () => {
  const n = 150;
  const { values } = tridiagonalEigen(...MATRICES["second difference"](n));
  values.forEach((v, i) => {
    const exact = 4 * Math.sin((i + 1) * Math.PI / (2 * (n + 1))) ** 2;
    ok(Math.abs(v - exact) <= 4 * n * Number.EPSILON, `${i}: ${v} is not ${exact}`);
  });
});

Deno.test("tridiagonalEigen() computes only the vectors that are wanted, and the same ones", () => {
  const n = 100;
  const [d, e] = MATRICES.random(n);
  const all = tridiagonalEigen(d, e);
  for (const [first, end] of [[0, 0], [0, 7], [60, 100], [0, 100]]) {
    const some = tridiagonalEigen(d, e, (values) => {
      strictEqual(values.length, n);
      return [first, end];
    });
    strictEqual(some.vectors.length, (end - first) * n);
    some.vectors.forEach((v, i) => strictEqual(v, all.vectors[first * n + i]));
  }
});

Deno.test("secularRoot() lies between its poles and keeps differences to the last bits", () => {
  const d = Float64Array.of(0, 1e-9, 1, 2);
  const z = Float64Array.of(0.5, 1e-8, 0.7, 0.1);
  const delta = new Float64Array(4);
  for (let k = 0; k < 4; k++) {
    const root = secularRoot(k, d, z, 0.3, delta);
    ok(root >= d[k] && (k === 3 || root <= d[k + 1]));
    ok(delta[k] < 0 && (k === 3 || delta[k + 1] > 0), "strictly between");
    const terms = z.map((v, j) => 0.3 * v * v / delta[j]);
    const size = terms.reduce((s, t) => s + Math.abs(t), 1);
    ok(Math.abs(terms.reduce((s, t) => s + t, 1)) <= 16 * Number.EPSILON * size);
  }
});
