import { deepStrictEqual, ok, throws } from "node:assert/strict";
import { denseUpdate, gramSolve } from "../../../engine/linalg/gram.ts";
import { choleskyInPlace, choleskySolve, leastSquares, luSolve } from "../../../engine/linalg/host.ts";
import { normals } from "../ops/_reference.ts";
import { column, norm, residuals, SPECTRA, symmetric } from "./_spd.ts";

/** A x for a row-major [rows, cols] matrix. */
function times(a: Float64Array, rows: number, cols: number, x: Float64Array): Float64Array {
  return Float64Array.from({ length: rows }, (_, i) => {
    let s = 0;
    for (let j = 0; j < cols; j++) s += a[i * cols + j] * x[j];
    return s;
  });
}

Deno.test("choleskySolve() solves to rounding when the spectrum is steep", () => {
  const n = 50;
  for (const eigenvalue of Object.values(SPECTRA)) {
    const a = symmetric(n, eigenvalue);
    const b = normals(2 * n, 1);
    const l = a.slice();
    choleskyInPlace(l, n);
    const x = choleskySolve(l, n, b, 2);
    // ‖A‖ = 1; see allowed() in cholesky_test.ts.
    residuals(a, n, x, b, 2).forEach((r, c) => ok(r <= 4 * n * 2 ** -53 * norm(column(x, n, c))));
  }
});

Deno.test("choleskyInPlace() throws when a pivot is not positive", () => {
  throws(() => choleskyInPlace(Float64Array.of(1, 0, 2, 1), 2, "A"), {
    name: "PivotError",
    message: /^Cannot factor A \[2, 2\]: column 1 has the pivot -3\.00/,
  });
});

Deno.test("luSolve() pivots when a leading element is zero, and refuses singular matrices", () => {
  deepStrictEqual([...luSolve([0, 2, 4, 0], 2, [2, 8, 4, 4], 2)], [2, 1, 1, 2]);
  throws(
    () => luSolve([1, 2, 2, 4], 2, [1, 1], 1, "G"),
    /Cannot solve with G \[2, 2\]: it is singular at column 1/,
  );
});

Deno.test("leastSquares() leaves a residual orthogonal to the columns", () => {
  const rows = 20, cols = 7;
  const a = normals(rows * cols, 3);
  const b = normals(2 * rows, 4);
  const x = leastSquares(a, rows, cols, b, 2);
  for (let c = 0; c < 2; c++) {
    const ax = times(a, rows, cols, column(x, cols, c));
    const r = column(b, rows, c).map((v, i) => v - ax[i]);
    const at = Float64Array.from(
      { length: rows * cols },
      (_, i) => a[i % rows * cols + Math.floor(i / rows)],
    );
    ok(norm(times(at, cols, rows, r)) <= rows * 2 ** -52 * norm(a) * norm(b));
  }
  throws(() => leastSquares([1, 2], 1, 2, [1]), /Cannot solve least squares with 1 equations for 2 unknowns/);
  throws(() => leastSquares([1, 2, 2, 4, 3, 6], 3, 2, [1, 1, 1]), /column 1 of 2 depends on those before it/);
});

/** n edits on a layer with f inputs and d outputs. */
const f = 40, d = 9, n = 5;

Deno.test("gramSolve() equals the f×f closed form (MEMIT, equation 14) when λ weighs C", () => {
  const C = symmetric(f, SPECTRA["condition 1e3"]);
  const keys = normals(n * f, 5);
  const residual = normals(n * d, 6);
  const lambda = 3;
  const l = C.slice();
  choleskyInPlace(l, f);
  const update = gramSolve({ n, keys, mKeys: choleskySolve(l, f, keys, n), residuals: residual, lambda });
  // dW = R Kᵀ (λC + K Kᵀ)⁻¹, the form the references solve.
  const A = C.map((v) => lambda * v);
  for (let e = 0; e < n; e++) {
    const k = column(keys, f, e);
    for (let i = 0; i < f; i++) for (let j = 0; j < f; j++) A[i * f + j] += k[i] * k[j];
  }
  choleskyInPlace(A, f);
  const solved = choleskySolve(A, f, keys, n);
  const expected = denseUpdate({ n, left: residual, right: solved });
  // Both invert matrices of condition 1e3 to f64 rounding.
  ok(norm(denseUpdate(update), expected) <= 1e3 * f * 2 ** -52 * norm(expected));
});

Deno.test("gramSolve() writes every residual exactly when λ is 0 and the keys are not those of M K", () => {
  const keys = normals(n * f, 7);
  const mKeys = keys.map((v, i) => v + 0.1 * Math.sin(i));
  const residual = normals(n * d, 8);
  const dW = denseUpdate(gramSolve({ n, keys, mKeys, residuals: residual }));
  for (let e = 0; e < n; e++) {
    const written = times(dW, d, f, column(keys, f, e));
    // The Gram matrix of random keys has a condition of about (√f + √n)²/(√f − √n)² = 4.
    ok(norm(written, column(residual, d, e)) <= 100 * f * 2 ** -52 * norm(residual));
  }
});

Deno.test("gramSolve() refuses repeated keys without λ, and sizes that do not fit", () => {
  const keys = Float64Array.of(1, 2, 1, 2);
  const problem = { n: 2, keys, mKeys: keys, residuals: Float64Array.of(1, 2) };
  throws(() => gramSolve(problem), /Cannot solve with the Gram matrix of the keys \[2, 2\]: it is singular/);
  ok(gramSolve({ ...problem, lambda: 1 }).left.every(Number.isFinite));
  throws(() => gramSolve({ ...problem, n: 3 }), /Cannot edit with 4 values of keys, .* not 3 columns each/);
});
