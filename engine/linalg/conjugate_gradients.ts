/**
 * Preconditioned conjugate gradients for several right-hand sides, vectors in host f64 (Golub & Van Loan
 * 11.5; the flexible β of Golub & Ye 1999, since a rounded preconditioner is not quite symmetric). The
 * residual is formed anew from x before it is believed.
 */
import { GpuError } from "../gpu/errors.ts";

/** m columns of length n, one after another, to as many. */
export type Operator = (columns: Float64Array, m: number) => Promise<Float64Array>;

/** What the iteration needs to know about A x = b. */
export interface LinearSystem {
  name: string;
  n: number;
  multiply: Operator;
  /** Approximately A⁻¹. */
  precondition: Operator;
  /** About ‖A‖₂; see {@link estimateNorm}. */
  norm: number;
}

/** Aim: ‖b − Ax‖ ≤ TOLERANCE·‖b‖. */
export const TOLERANCE = 1e-10;
/** Or ‖b − Ax‖ ≤ FLOOR·‖A‖‖x‖: x itself is a two-float number in the product, 2⁻⁴⁸ = 4e-15 coarse. */
const FLOOR = 1e-13;
/** Steps before the residual is formed anew, and how often that happens. */
const STEPS = 60;
const ROUNDS = 5;

/**
 * Solves for m columns.
 * @throws {GpuError} when A has a direction of negative curvature, or the residual stays above the aim
 */
export async function conjugateGradients(
  system: LinearSystem,
  b: Float64Array,
  m: number,
): Promise<{ x: Float64Array; residual: number; iterations: number }> {
  const { name, n, norm } = system;
  const x = new Float64Array(n * m);
  const goal = each(m, (c) => TOLERANCE * length(b, c, n));
  let r = b.slice();
  let iterations = 0;
  for (let round = 0; round < ROUNDS; round++) {
    iterations += await descend(system, x, r, m, goal);
    const ax = await system.multiply(x, m);
    r = b.map((v, i) => v - ax[i]);
    const done = (c: number) => length(r, c, n) <= Math.max(goal[c], FLOOR * norm * length(x, c, n));
    if (each(m, done).every((d) => d)) {
      return {
        x,
        iterations,
        residual: Math.max(...each(m, (c) => length(r, c, n) / (length(b, c, n) || 1))),
      };
    }
  }
  const worst = Math.max(...each(m, (c) => length(r, c, n) / (length(b, c, n) || 1)));
  throw new GpuError(
    `Cannot solve with ${name} [${n}, ${n}]: the relative residual is ${
      worst.toExponential(1)
    } after ${iterations} ` +
      `steps; ${TOLERANCE} was the aim`,
    "The matrix is too ill-conditioned: use a larger jitter, or a statistic of more tokens",
  );
}

/** ‖A‖₂ of a positive definite operator from below by four power iterations: enough for a factor of 2. */
export async function estimateNorm(multiply: Operator, n: number): Promise<number> {
  // Signs without a pattern, so that no eigenvector is nearly missed.
  let x = Float64Array.from({ length: n }, (_, i) => Math.sin(i * i + 1) < 0 ? -1 : 1);
  let norm = 0;
  for (let step = 0; step < 4; step++) {
    const y = await multiply(x, 1);
    norm = length(y, 0, n) / length(x, 0, n);
    x = y.map((v) => v / norm);
  }
  return norm;
}

/** CG steps on A d = r until every column's recursive residual reaches its goal; adds d to x, spoils r. */
async function descend(
  { name, n, multiply, precondition }: LinearSystem,
  x: Float64Array,
  r: Float64Array,
  m: number,
  goal: number[],
): Promise<number> {
  // A little below the goal: the residual formed anew differs from the recursive one.
  const active = each(m, (c) => length(r, c, n) > 0.5 * goal[c]);
  let z = await precondition(r, m);
  const p = z.slice();
  let rz = each(m, (c) => dot(r, z, c, n));
  for (let step = 0; step < STEPS; step++) {
    if (!active.some((a) => a)) return step;
    const q = await multiply(p, m);
    const before = r.slice();
    for (let c = 0; c < m; c++) {
      if (!active[c]) continue;
      const curvature = dot(p, q, c, n);
      if (!(curvature > 0)) {
        throw new GpuError(
          `Cannot solve with ${name} [${n}, ${n}]: it is not positive definite (a direction has curvature ` +
            `${curvature.toExponential(1)})`,
          "Use a larger jitter, or a statistic of more tokens",
        );
      }
      const alpha = rz[c] / curvature;
      for (let i = c * n; i < (c + 1) * n; i++) {
        x[i] += alpha * p[i];
        r[i] -= alpha * q[i];
      }
      if (length(r, c, n) <= 0.5 * goal[c]) active[c] = false;
    }
    if (!active.some((a) => a)) return step + 1;
    z = await precondition(r, m);
    const next = each(m, (c) => dot(r, z, c, n));
    for (let c = 0; c < m; c++) {
      const beta = (next[c] - dot(before, z, c, n)) / rz[c];
      for (let i = c * n; i < (c + 1) * n; i++) p[i] = z[i] + beta * p[i];
    }
    rz = next;
  }
  return STEPS;
}

function each<T>(m: number, of: (c: number) => T): T[] {
  return Array.from({ length: m }, (_, c) => of(c));
}

function dot(a: Float64Array, b: Float64Array, c: number, n: number): number {
  let s = 0;
  for (let i = c * n; i < (c + 1) * n; i++) s += a[i] * b[i];
  return s;
}

function length(a: Float64Array, c: number, n: number): number {
  return Math.sqrt(dot(a, a, c, n));
}
