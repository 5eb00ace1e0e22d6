/**
 * Least squares min ‖A x − b‖² + λ‖x‖² on the device, for A of f32 numbers and many equations:
 *
 *     x += R⁻¹ R⁻ᵀ (Aᵀ(b − A x) − λ x)        corrected seminormal equations
 *
 * with residuals more exact than R is (Björck, Numerical Methods for Least Squares Problems, 6.6.5). Three
 * routes as in cholesky.ts: "f64" has R and residuals in native f64; "compensated" has R in f32 and residuals
 * in two-float numbers; "host" is Householder QR in TypeScript for tiny systems, and the tests' oracle.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Real } from "../kernels/linalg.ts";
import { freeTensor, type Tensor } from "../tensor/tensor.ts";
import { fromHost, readF32 } from "../tensor/transfer.ts";
import { type Triangle, triangleOf } from "./cholesky_qr.ts";
import type { Route } from "./cholesky.ts";
import {
  checkTensor,
  type Dense,
  type DenseSource,
  equilibrate,
  type Residuals,
  residualsOf,
} from "./dense.ts";
import { leastSquares } from "./host.ts";
import { powerOfTwo } from "./symmetric.ts";

/** What to solve. Columns of b and x lie one after another: b is a row-major [m, rows] array. */
export interface LeastSquaresProblem {
  /** Equations. At least as many as unknowns unless λ > 0. */
  rows: number;
  /** Unknowns. */
  cols: number;
  /**
   * A [rows, cols] row-major: an f32 tensor, in shards or not, which stays as it is; or a host array. Of a
   * Float64Array the route "compensated" takes 48 bits, and no route takes what is beyond the range of f32.
   */
  a: DenseSource;
  b: Float32Array | Float64Array;
  /** Right-hand sides; default 1. */
  m?: number;
  /** λ of ridge regression; default 0. */
  lambda?: number;
}

/** Options of {@link solveLeastSquares}. */
export interface LeastSquaresOptions {
  /** Default "auto": see {@link leastSquaresRoute}. */
  route?: Route | "auto";
  /** Largest buffer in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
}

/** How a solve went. */
export interface LeastSquaresReport {
  route: Route;
  /** Largest ‖b − Ax‖/‖b‖ over the right-hand sides. */
  residual: number;
  /** Largest |Aⱼᵀ(b − Ax) − λxⱼ| / (‖Aⱼ‖‖b‖): 0 where x is the minimum. With λ the length of (Aⱼ, √λ). */
  gradient: number;
  /** Corrections after the first solution; 0 on the host. */
  refinements: number;
  /** Gram matrices that R took; 0 on the host. */
  passes: number;
  /** Lower bound of the condition number of A with columns of equal length; undefined on the host. */
  conditionEstimate?: number;
}

/** Right-hand sides that are solved together. */
const WIDTH = 128;
/** Corrections in a row that do not halve before a column is given up whose gradient is above its aim. */
const PATIENCE = 8;
/** Aim for the gradient, as conjugate_gradients.ts has for residuals … */
const TOLERANCE = 1e-10;
/** … or this share of ‖A‖‖x‖/‖b‖, the rounding of A x. */
const FLOOR = 1e-13;

/** What "auto" means on a device: the host up to 64 × 64 numbers, else f64 where there is, else two-float. */
export function leastSquaresRoute(gpu: Gpu, rows: number, cols: number): Route {
  if (rows * cols <= 64 * 64) return "host";
  return gpu.numerics.f64 ? "f64" : "compensated";
}

/**
 * Solves for m right-hand sides; x holds m columns of length cols, in f64.
 * @throws {GpuError} when sizes do not fit, there are too few equations, a number is not finite, a column
 * depends on those before it, or the refinement stops short
 */
export async function solveLeastSquares(
  gpu: Gpu,
  problem: LeastSquaresProblem,
  options: LeastSquaresOptions = {},
): Promise<{ x: Float64Array; report: LeastSquaresReport }> {
  const { rows, cols, a, m = 1, lambda = 0 } = problem;
  const b = checkProblem(problem);
  const { route: asked = "auto", maxShardBytes } = options;
  const route = asked === "auto" ? leastSquaresRoute(gpu, rows, cols) : asked;
  if (route === "host") return await solveOnHost(gpu, problem, b);
  if (route === "f64" && !gpu.numerics.f64) {
    throw new GpuError(
      "Cannot solve least squares in f64: the device has no f64",
      'Use the route "compensated"',
    );
  }
  const real: Real = route === "f64" ? "f64" : "f32";
  const width = m === 1 ? 1 : Math.min(WIDTH, 4 * Math.ceil(m / 4));
  using dense = await equilibrate(gpu, a, rows, cols, { real, maxShardBytes });
  // λ is so many more equations √λ x = 0, which only R has to see: residuals have λ x itself.
  const ridge = lambda > 0 ? ridgeRows(gpu, dense, lambda, maxShardBytes) : undefined;
  try {
    const blocks = ridge ? [dense.hi, ridge] : [dense.hi];
    using triangle = await triangleOf(gpu, blocks, width, { real, maxShardBytes });
    using residuals = residualsOf(gpu, dense, width);
    const x = new Float64Array(cols * m);
    const { passes, conditionEstimate } = triangle;
    const report = { route, residual: 0, gradient: 0, refinements: 0, passes, conditionEstimate };
    for (let first = 0; first < m; first += width) {
      const count = Math.min(width, m - first);
      const part = new Float64Array(rows * width);
      part.set(b.subarray(first * rows, (first + count) * rows));
      const solved = await refine({ dense, triangle, residuals, lambda, width }, part);
      x.set(solved.x.subarray(0, count * cols), first * cols);
      for (const key of ["residual", "gradient", "refinements"] as const) {
        report[key] = Math.max(report[key], solved[key]);
      }
    }
    return { x, report };
  } finally {
    if (ridge) freeTensor(gpu, ridge);
  }
}

/** Checks sizes and numbers; b as f64. */
function checkProblem({ rows, cols, a, b, m = 1, lambda = 0 }: LeastSquaresProblem): Float64Array {
  if (!(lambda >= 0 && lambda < Infinity)) {
    throw new GpuError(`Cannot solve least squares with a lambda of ${lambda}`);
  }
  if (!(cols >= 1) || !(rows >= 1) || (rows < cols && lambda === 0)) {
    throw new GpuError(
      `Cannot solve least squares with ${rows} equations for ${cols} unknowns`,
      "Give more equations, or a lambda above 0",
    );
  }
  if ("shape" in a) checkTensor(a, rows, cols);
  else if (a.length !== rows * cols) {
    throw new GpuError(
      `Cannot solve least squares: A [${rows}, ${cols}] has ${rows * cols} values, not ${a.length}`,
    );
  }
  if (b.length !== rows * m) {
    throw new GpuError(
      `Cannot solve least squares: ${m} right-hand sides of ${rows} have ${rows * m} values, not ${b.length}`,
    );
  }
  const bad = b.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) {
    throw new GpuError(
      `Cannot solve least squares: right-hand side ${Math.floor(bad / rows)} has ${b[bad]} at ${bad % rows}`,
    );
  }
  return Float64Array.from(b);
}

/** diag(√λ) in the units of the scaled columns. */
function ridgeRows(gpu: Gpu, { cols, real, scale }: Dense, lambda: number, maxShardBytes?: number): Tensor {
  const diagonal = new Float64Array(cols * cols);
  scale.forEach((s, j) => diagonal[j * cols + j] = Math.sqrt(lambda) * s);
  return fromHost(gpu, "√λ", [cols, cols], diagonal, { dtype: real, owner: "linalg", maxShardBytes });
}

/** What the refinement of one group of right-hand sides needs. */
interface Refinement {
  dense: Dense;
  triangle: Triangle;
  residuals: Residuals;
  lambda: number;
  /** Right-hand sides of the plans. */
  width: number;
}

/**
 * Refines until corrections stop halving, which is where rounding takes over: the second time where the
 * gradient has met its aim, else with patience, since R of nearly dependent columns makes uneven progress.
 * @throws {GpuError} when a gradient stays above its aim
 */
async function refine({ dense, triangle, residuals, lambda, width: m }: Refinement, b: Float64Array) {
  const { rows, cols, scale } = dense;
  const { norms } = triangle;
  // In y = x / scale, and with b near 1, all numbers are of moderate size.
  const sizes = Array.from({ length: m }, (_, c) => powerOfTwo(b.subarray(c * rows, (c + 1) * rows)));
  const rhs = b.map((v, i) => v / sizes[Math.floor(i / rows)]);
  const lengths = sizes.map((_, c) => length(rhs, c, rows) || 1);
  const y = new Float64Array(cols * m);
  const weights = Float64Array.from(scale, (s) => lambda * s * s);
  const columns = sizes.map(() => ({ active: true, least: Infinity, strikes: 0 }));
  for (let refinements = 0;; refinements++) {
    const { r, s } = await residuals.at(y, rhs, y.map((v, i) => v * weights[i % cols]));
    const size = (c: number) => length(y, c, cols, norms);
    const gradients = lengths.map((l, c) => relativeGradient(s, c, norms) / l);
    const aims = lengths.map((l, c) => Math.max(TOLERANCE, FLOOR * Math.sqrt(cols) * size(c) / l));
    const d = await triangle.solve(s);
    columns.forEach((column, c) => {
      if (!column.active) return;
      const step = length(d, c, cols, norms);
      const halved = step <= column.least / 2;
      column.strikes = halved ? 0 : column.strikes + 1;
      if (halved) column.least = step;
      column.active = step > 2 ** -52 * size(c) &&
        column.strikes <= (gradients[c] <= aims[c] ? 1 : PATIENCE);
      if (column.active) { for (let j = c * cols; j < (c + 1) * cols; j++) y[j] += d[j]; }
    });
    if (columns.some(({ active }) => active)) continue;
    const worst = gradients.findIndex((g, c) => !(g <= aims[c]));
    if (worst >= 0) throw unrefined(rows, cols, gradients[worst], aims[worst]);
    return {
      x: y.map((v, i) => v * scale[i % cols] * sizes[Math.floor(i / cols)]),
      residual: Math.max(...lengths.map((l, c) => length(r, c, rows) / l)),
      gradient: Math.max(...gradients),
      // The first solution is no refinement.
      refinements: Math.max(0, refinements - 1),
    };
  }
}

function unrefined(rows: number, cols: number, gradient: number, aim: number): GpuError {
  return new GpuError(
    `Cannot solve least squares [${rows}, ${cols}]: the relative gradient stays at ${
      gradient.toExponential(1)
    }; ` +
      `${aim.toExponential(0)} was the aim`,
    "The columns are too close to dependent: leave some out or give a larger lambda",
  );
}

/** The largest |sⱼ|/‖Aⱼ‖ of column c. */
function relativeGradient(s: Float64Array, c: number, norms: Float64Array): number {
  return norms.reduce((most, norm, j) => Math.max(most, Math.abs(s[c * norms.length + j]) / norm), 0);
}

/** ‖w ∘ v‖ of column c. */
function length(v: Float64Array, c: number, n: number, w?: Float64Array): number {
  let s = 0;
  for (let i = 0; i < n; i++) s += (v[c * n + i] * (w ? w[i] : 1)) ** 2;
  return Math.sqrt(s);
}

/** Householder QR of the host, λ as further equations. */
async function solveOnHost(
  gpu: Gpu,
  { rows, cols, a: source, m = 1, lambda = 0 }: LeastSquaresProblem,
  b: Float64Array,
): Promise<{ x: Float64Array; report: LeastSquaresReport }> {
  const a = "shape" in source ? await readF32(gpu, source) : source;
  const bad = a.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) {
    throw new GpuError(
      `Cannot solve least squares: column ${bad % cols} of ${cols} has a number that is not finite`,
    );
  }
  const extra = lambda > 0 ? cols : 0;
  const tall = new Float64Array((rows + extra) * cols);
  tall.set(a);
  for (let j = 0; j < extra; j++) tall[(rows + j) * cols + j] = Math.sqrt(lambda);
  const rhs = new Float64Array((rows + extra) * m);
  for (let c = 0; c < m; c++) rhs.set(b.subarray(c * rows, (c + 1) * rows), c * (rows + extra));
  const x = leastSquares(tall, rows + extra, cols, rhs, m);
  const report: LeastSquaresReport = { route: "host", residual: 0, gradient: 0, refinements: 0, passes: 0 };
  for (let c = 0; c < m; c++) {
    const r = b.slice(c * rows, (c + 1) * rows);
    for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) r[i] -= a[i * cols + j] * x[c * cols + j];
    const size = length(b, c, rows) || 1;
    report.residual = Math.max(report.residual, length(r, 0, rows) / size);
    for (let j = 0; j < cols; j++) {
      let s = -lambda * x[c * cols + j], norm = lambda;
      for (let i = 0; i < rows; i++) {
        s += a[i * cols + j] * r[i];
        norm += a[i * cols + j] ** 2;
      }
      report.gradient = Math.max(report.gradient, Math.abs(s) / (Math.sqrt(norm) * size));
    }
  }
  return { x, report };
}
