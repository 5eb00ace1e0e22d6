import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { bufferFrom } from "../../../engine/linalg/buffers.ts";
import { leastSquares } from "../../../engine/linalg/host.ts";
import {
  type LeastSquaresProblem,
  leastSquaresRoute,
  solveLeastSquares,
} from "../../../engine/linalg/least_squares.ts";
import { readPacked } from "../../../engine/linalg/pack.ts";
import { createPanels, freePanels, recordRankUpdate } from "../../../engine/linalg/panels.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { normals } from "../ops/_reference.ts";
import { column, DEVICES, norm } from "./_spd.ts";

const ROUTES = [["native", "f64"], ["single", "compensated"], ["portable", "compensated"]] as const;

/** A rounding of the residuals on a route: f64, or two-float numbers. */
const UNIT = { f64: 2 ** -53, compensated: 2 ** -48 };

/** A [rows, cols] with singular values from 1 down to 1/condition: three reflections on either side of them. */
function rectangular(rows: number, cols: number, condition: number): Float64Array {
  const a = new Float64Array(rows * cols);
  for (let i = 0; i < cols; i++) a[i * cols + i] = condition ** (-i / Math.max(1, cols - 1));
  const reflect = (v: Float64Array, lines: number, along: number, across: number) => {
    const vv = v.reduce((s, x) => s + x * x, 0);
    for (let l = 0; l < lines; l++) {
      const s = 2 / vv * v.reduce((sum, x, k) => sum + x * a[l * across + k * along], 0);
      v.forEach((x, k) => a[l * across + k * along] -= s * x);
    }
  };
  for (let h = 0; h < 3; h++) {
    reflect(normals(rows, 1000 * h + rows), cols, cols, 1);
    reflect(normals(cols, 1000 * h + cols + 7), rows, 1, cols);
  }
  return a;
}

/** b − A x of column c in host f64. */
function residual({ rows, cols, a, b }: LeastSquaresProblem, x: Float64Array, c: number): Float64Array {
  const values = a as Float64Array;
  return Float64Array.from({ length: rows }, (_, i) => {
    let s = b[c * rows + i];
    for (let j = 0; j < cols; j++) s -= values[i * cols + j] * x[c * cols + j];
    return s;
  });
}

/**
 * Allowed ‖x − x'‖ when ‖A‖ = 1 (Higham, Accuracy and Stability, 20.1): κ‖x‖ + κ²‖r‖ roundings, which grow
 * like √rows; 8 of them, since the reference errs as much and constants are not 1.
 */
function allowed(unit: number, rows: number, condition: number, x: Float64Array, r: Float64Array): number {
  return 8 * Math.sqrt(rows) * unit * condition * (norm(x) + condition * norm(r));
}

/** Around the tiles of 64 and 128, the slices of 512 and the padding of right-hand sides. */
const SHAPES = [[1, 1, 1], [5, 1, 3], [64, 64, 1], [67, 65, 5], [300, 31, 4], [515, 70, 3], [1030, 130, 2]];

for (const [device, route] of ROUTES) {
  Deno.test(`solveLeastSquares() agrees with Householder QR by ${route} on the ${device} device`, async () => {
    const gpu = await DEVICES[device]();
    for (const [i, [rows, cols, m]] of SHAPES.entries()) {
      const conditions = device === "portable" ? [1e2] : [1e2, 1e4, 1e6];
      for (const condition of conditions) {
        // f32 could not hold a condition of 1e6 to its smallest singular value.
        const exact = rectangular(rows, cols, condition);
        const a = condition < 1e6 ? Float32Array.from(exact) : exact;
        const problem = { rows, cols, a, b: normals(rows * m, i), m };
        const { x, report } = await solveLeastSquares(gpu, problem, { route });
        const want = leastSquares(a, rows, cols, problem.b, m);
        strictEqual(report.route, route);
        strictEqual(x.length, cols * m);
        let worst = 0;
        for (let c = 0; c < m; c++) {
          const [got, expected] = [x, want].map((v) => column(v, cols, c));
          const r = residual(problem, want, c);
          worst = Math.max(worst, norm(r) / norm(column(problem.b, rows, c)));
          const limit = allowed(UNIT[route], rows, condition, expected, r);
          const error = norm(got, expected);
          ok(error <= limit, `${route} [${rows}, ${cols}] condition ${condition}: ${error} > ${limit}`);
        }
        // The residual of a square system is the rounding of A x: 1e-13 of a condition of 1e6.
        ok(Math.abs(report.residual - worst) <= 1e-7);
        // Equal columns are within √cols of the best scaling there is (van der Sluis 1969).
        ok(report.conditionEstimate! <= 1.01 * condition * Math.sqrt(cols));
      }
    }
    gpu.check();
  });
}

/** Relative error of x, whose exact values are given. */
async function errorOf(gpu: Gpu, problem: LeastSquaresProblem, route: "f64" | "compensated", want: number[]) {
  const { x, report } = await solveLeastSquares(gpu, problem, { route });
  return { error: norm(x, want) / norm(want), report };
}

Deno.test("solveLeastSquares() solves Läuchli's problem, whose Gram matrix is singular to working precision", async () => {
  const n = 70, rows = n + 1;
  // A = (1 … 1; εI). x sums to 0 and r = ε(−ε, 1, …, 1) is orthogonal to A, so b = A x + r is exact.
  for (
    const [device, route, epsilon] of [["native", "f64", 2 ** -30], [
      "single",
      "compensated",
      2 ** -15,
    ]] as const
  ) {
    const a = new Float32Array(rows * n).fill(1, 0, n);
    const x = Array.from({ length: n }, (_, j) => (j >> 1) * (j % 2 ? -1 : 1));
    for (let j = 0; j < n; j++) a[(j + 1) * n + j] = epsilon;
    const b = Float64Array.of(-epsilon * epsilon, ...x.map((v) => epsilon * (v + 1)));
    strictEqual((route === "f64" ? (v: number) => v : Math.fround)(1 + epsilon ** 2), 1);
    const { error, report } = await errorOf(await DEVICES[device](), { rows, cols: n, a, b }, route, x);
    // κ = √n/ε and ‖A‖ = √n; r is below κ⁻¹‖A‖‖x‖, so one κ counts.
    const condition = Math.sqrt(n) / epsilon;
    ok(error <= 8 * Math.sqrt(rows) * UNIT[route] * condition, `${route}: ${error}`);
    ok(report.passes > 1);
  }
});

Deno.test("solveLeastSquares() recovers the coefficients of a polynomial from a Vandermonde matrix", async () => {
  const rows = 65, cols = 8;
  const want = [3, -1, 4, -1, 5, -9, 2, -6];
  const a = new Float64Array(rows * cols);
  const b = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    // Powers of i/64 up to the seventh have 42 bits: exact, and so are the values.
    for (let j = 0; j < cols; j++) a[i * cols + j] = (i / 64) ** j;
    for (let j = 0; j < cols; j++) b[i] += want[j] * a[i * cols + j];
  }
  // Eighth differences are orthogonal to polynomials of degree 7: a residual that changes nothing.
  [1, -8, 28, -56, 70, -56, 28, -8, 1].forEach((v, i) => b[20 + i] += v / 2 ** 17);
  for (const [device, route] of ROUTES) {
    const { error, report } = await errorOf(await DEVICES[device](), { rows, cols, a, b }, route, want);
    // AᵀA is nearly 64 times the Hilbert matrix of order 8, so its condition 1.5e10 is κ²; r is κ⁻¹‖A‖‖x‖.
    const limit = 8 * Math.sqrt(rows) * UNIT[route] * Math.sqrt(1.5e10) * 2;
    ok(error <= limit, `${route}: ${error} > ${limit}`);
    ok(report.residual > 0);
  }
});

Deno.test("solveLeastSquares() leaves a residual orthogonal to the columns, whatever their sizes", async () => {
  const gpus = { f64: await DEVICES.native(), compensated: await DEVICES.single() };
  const shape = fc.record({
    cols: fc.integer({ min: 1, max: 90 }),
    more: fc.integer({ min: 0, max: 150 }),
    m: fc.integer({ min: 1, max: 6 }),
    seed: fc.integer({ min: 1, max: 1e6 }),
    spread: fc.integer({ min: 0, max: 60 }),
    lambda: fc.constantFrom(0, 0, 0.5),
  });
  const property = fc.asyncProperty(shape, async ({ cols, more, m, seed, spread, lambda }) => {
    const rows = cols + more;
    const size = (j: number) => 2 ** Math.round(spread * Math.sin(j + seed));
    const a = Float32Array.from(normals(rows * cols, seed), (v, at) => v * size(at % cols));
    const b = normals(rows * m, seed + 1, 1e-3);
    for (const route of ["f64", "compensated"] as const) {
      const problem = { rows, cols, a, b, m, lambda };
      const { x, report } = await solveLeastSquares(gpus[route], problem, { route });
      let worst = 0;
      for (let c = 0; c < m; c++) {
        const r = residual(problem, x, c);
        for (let j = 0; j < cols; j++) {
          let s = -lambda * x[c * cols + j], length = lambda;
          for (let i = 0; i < rows; i++) {
            s += a[i * cols + j] * r[i];
            length += a[i * cols + j] ** 2;
          }
          worst = Math.max(worst, Math.abs(s) / Math.sqrt(length) / norm(column(b, rows, c)));
        }
      }
      // The aim of the refinement, doubled for what the host's own residual rounds. A square random matrix
      // may have a condition in the thousands, 1e-13 of which is far below.
      ok(worst <= 2e-10, `${route}: ${worst}`);
      ok(report.gradient <= 1e-10);
    }
  });
  await fc.assert(property, { numRuns: 12, seed: 5 });
});

Deno.test("solveLeastSquares() gives the same answer when A is a tensor, in shards or not", async () => {
  const rows = 300, cols = 70, m = 131;
  const a = Float32Array.from(rectangular(rows, cols, 1e3));
  const b = normals(rows * m, 2);
  const want = leastSquares(a, rows, cols, b, m);
  for (const [device, route] of [["native", "f64"], ["single", "compensated"], ["native", "host"]] as const) {
    const gpu = await DEVICES[device]();
    const whole = fromHost(gpu, "A", [rows, cols], a);
    const parts = fromHost(gpu, "A", [rows, cols], a, { maxShardBytes: 110 * cols * 4 });
    strictEqual(parts.shards.length, 3);
    const one = await solveLeastSquares(gpu, { rows, cols, a: whole, b, m }, { route });
    const maxShardBytes = 64 * 128 * 8;
    const many = await solveLeastSquares(gpu, { rows, cols, a: parts, b, m }, { route, maxShardBytes });
    for (const { x } of [one, many]) {
      for (let c = 0; c < m; c++) {
        const expected = column(want, cols, c);
        const r = residual({ rows, cols, a, b }, want, c);
        const limit = allowed(2 ** -48, rows, 1e3, expected, r);
        ok(norm(column(x, cols, c), expected) <= limit, `${route}`);
      }
    }
    [whole, parts].forEach((t) => freeTensor(gpu, t));
    gpu.check();
  }
});

Deno.test("solveLeastSquares() adds lambda as ridge regression does, also with fewer equations than unknowns", async () => {
  for (const [rows, cols] of [[90, 66], [40, 90]]) {
    const a = Float32Array.from(normals(rows * cols, rows));
    // A column of zeros has an answer too: 0.
    for (let i = 0; i < rows; i++) a[i * cols + 9] = 0;
    const problem = { rows, cols, a, b: normals(2 * rows, 3), m: 2, lambda: 0.25 };
    const tall = new Float64Array((rows + cols) * cols);
    tall.set(a);
    for (let j = 0; j < cols; j++) tall[(rows + j) * cols + j] = 0.5;
    const padded = new Float64Array(2 * (rows + cols));
    for (const c of [0, 1]) padded.set(column(problem.b, rows, c), c * (rows + cols));
    const want = leastSquares(tall, rows + cols, cols, padded, 2);
    for (
      const [device, route] of [["native", "f64"], ["single", "compensated"], ["native", "host"]] as const
    ) {
      const { x, report } = await solveLeastSquares(await DEVICES[device](), problem, { route });
      // ‖A‖ is about √90 + √66, its smallest singular value at least 1/2: a condition of 40.
      ok(norm(x, want) <= 8 * Math.sqrt(rows + cols) * 2 ** -48 * 40 ** 2 * norm(want), `${route}`);
      strictEqual(x[9], 0);
      strictEqual(report.route, route);
    }
  }
});

Deno.test("solveLeastSquares() solves on the host's products when the device breaks compensated sums", async () => {
  const gpu = await DEVICES.single();
  const trusted = gpu.numerics;
  gpu.numerics = { ...trusted, compensated: false };
  try {
    const [rows, cols] = [100, 66];
    const a = rectangular(rows, cols, 1e4);
    const x = normals(cols, 1);
    const b = Float64Array.from(
      { length: rows },
      (_, i) => x.reduce((s, v, j) => s + v * a[i * cols + j], 0),
    );
    const { error } = await errorOf(gpu, { rows, cols, a, b }, "compensated", [...x]);
    ok(error <= 8 * Math.sqrt(rows) * 2 ** -48 * 1e4, `${error}`);
  } finally {
    gpu.numerics = trusted;
  }
});

Deno.test("recordRankUpdate() adds the product in f64 in either family", async () => {
  const gpu = await DEVICES.native();
  const n = 130, K = 9;
  const a = normals(K * n, 6);
  const storage = bufferFrom(gpu, "A", a);
  for (const family of ["register", "tiled"] as const) {
    const panels = createPanels(gpu, "C", n, "f64", 64 * 192 * 8);
    const r = gpu.recorder();
    const factor = { storage, offset: 0, K, ld: n, last: n - 1 };
    for (let twice = 0; twice < 2; twice++) {
      recordRankUpdate(r, panels, factor, { epilogue: "plus", family });
    }
    using plan = r.finish("update");
    plan.run();
    const got = await readPacked(gpu, panels);
    for (let i = 0, at = 0; i < n; i++) {
      for (let j = 0; j <= i; j++, at++) {
        let want = 0, size = 0;
        for (let k = 0; k < K; k++) {
          want += 2 * a[k * n + i] * a[k * n + j];
          size += 2 * Math.abs(a[k * n + i] * a[k * n + j]);
        }
        ok(
          Math.abs(got[at] - want) <= K * 2 ** -52 * size,
          `${family} (${i}, ${j}): ${got[at]}, not ${want}`,
        );
      }
    }
    freePanels(gpu, panels);
  }
  gpu.memory.free(storage);
});

Deno.test("solveLeastSquares() takes the route that its report tells", async () => {
  const [native, single] = [await DEVICES.native(), await DEVICES.single()];
  deepStrictEqual([native, single].map((gpu) => leastSquaresRoute(gpu, 64, 64)), ["host", "host"]);
  deepStrictEqual([native, single].map((gpu) => leastSquaresRoute(gpu, 4096, 1024)), ["f64", "compensated"]);
  const small = { rows: 3, cols: 1, a: Float32Array.of(1, 1, 1), b: Float32Array.of(1, 2, 6) };
  const { x, report } = await solveLeastSquares(native, small);
  strictEqual(report.route, "host");
  ok(Math.abs(x[0] - 3) <= 2 ** -50);
  const zero = await solveLeastSquares(native, { ...small, b: new Float32Array(3) }, { route: "f64" });
  deepStrictEqual([...zero.x, zero.report.residual, zero.report.refinements], [0, 0, 0]);
  const large = { rows: 65, cols: 64, a: normals(65 * 64, 1), b: normals(65, 2) };
  for (const gpu of [native, single]) {
    const { report } = await solveLeastSquares(gpu, large);
    strictEqual(report.route, gpu === native ? "f64" : "compensated");
  }
});
