/**
 * The route for devices without f64: an f32 Cholesky factor, with as much extra diagonal as it needs to
 * exist, preconditions conjugate gradients on the exact system. Measured on synthetic spectra by the engine
 * notes (section 9): plain refinement diverges at condition 1e8, conjugate gradients converge.
 */
import type { Gpu } from "../gpu/device.ts";
import { bufferFrom } from "./buffers.ts";
import type { SolveReport, SpdFactor } from "./cholesky.ts";
import { conjugateGradients, estimateNorm, type Operator } from "./conjugate_gradients.ts";
import { PivotError } from "./host.ts";
import { checkColumns, conditionFrom, padOnes, readDiagonal, regularise, scaleColumns } from "./matrix.ts";
import type { Regularised, SpdMatrix, System } from "./matrix.ts";
import { type FactorFacts, factorScaled } from "./native.ts";
import { packParts, panelsFrom, type Parts, readPacked } from "./pack.ts";
import { createPanels, freePanels, type Panels, recordLoad } from "./panels.ts";
import { powerOfTwo, SymmetricOperator } from "./symmetric.ts";
import { readLower } from "./tiny.ts";
import { TriangularSolver } from "./triangular.ts";
import { checkDowndate, updatePanels } from "./update.ts";

/**
 * Extra diagonal of the preconditioner, relative to the scaled diagonal of 1, tried in turn when the matrix
 * as it is has no f32 factor. It starts at the size of f32 rounding; a matrix that needs more than the last
 * is not positive definite to f32's eye.
 */
const EXTRA = [1e-6, 1e-5, 1e-4, 1e-3];

/** Everything a compensated factor owns on the device. */
interface Owned {
  /** The system's matrix: C in f32, its low words where it has some; unscaled, unweighted. */
  hi: Panels;
  lo?: Panels;
  /** What the f32 diagonal of `hi` lacks. */
  rest: Float64Array;
  /** The preconditioner: factor of the scaled matrix. */
  l: Panels;
  scale: Float32Array;
}

/** Factors for the compensated route. @throws {PivotError} when even the largest extra diagonal fails */
export async function factorCompensated(gpu: Gpu, given: System): Promise<SpdFactor> {
  const narrow = given.matrix.real === "f64" ? await narrowed(gpu, given) : undefined;
  try {
    const system = narrow ? { ...given, matrix: narrow.matrix } : given;
    const { name, matrix: { n, weight }, jitter } = system;
    const regular = regularise(system, await readDiagonal(gpu, system.matrix));
    const { scale, shift } = regular;
    const { l, diagonal } = await factorApproximately(gpu, system, regular);
    const exact = copyExact(gpu, system, regular.diagonal);
    const facts = { name, n, jitter, shift, weight, conditionEstimate: conditionFrom(diagonal, scale) };
    return compensatedFactor(gpu, { ...exact, l, scale }, facts);
  } finally {
    narrow?.dispose();
  }
}

/** An f32 factor of the scaled system, or of one close to it. @throws {PivotError} of the first attempt */
async function factorApproximately(gpu: Gpu, system: System, regular: Regularised) {
  const first = await factorScaled(gpu, system, regular, "f32");
  if (!("column" in first)) return first;
  for (const extra of EXTRA) {
    const made = await factorScaled(gpu, system, regular, "f32", extra);
    if (!("column" in made)) return made;
  }
  throw new PivotError(system.name, system.matrix.n, first.column, first.pivot, system.jitter);
}

/** Copies the unscaled matrix with its regularised diagonal, which f32 and `rest` hold together. */
function copyExact(gpu: Gpu, { name, matrix, maxShardBytes }: System, diagonal: Float64Array) {
  const { n } = matrix;
  const rounded = Float32Array.from(diagonal);
  const hi = createPanels(gpu, `${name} high`, n, "f32", maxShardBytes);
  const low = matrix.blocks.some((b) => b.lo);
  const lo = low ? createPanels(gpu, `${name} low`, n, "f32", maxShardBytes) : undefined;
  const ones = bufferFrom(gpu, "ones", new Float32Array(hi.padded).fill(1));
  const high = bufferFrom(gpu, "diagonal", padOnes(rounded, hi.padded));
  const zeros = bufferFrom(gpu, "zeros", new Float32Array(hi.padded));
  const r = gpu.recorder();
  recordLoad(r, hi, matrix, { scale: ones, diagonal: high });
  if (lo) recordLoad(r, lo, matrix, { scale: ones, diagonal: zeros, lowWords: true });
  using plan = r.finish(`copy ${name}`);
  plan.run();
  [ones, high, zeros].forEach((b) => gpu.memory.free(b));
  return { hi, lo, rest: diagonal.map((v, i) => v - rounded[i]) };
}

/** An f64 matrix as two-float panels, by way of the host: this route must not need f64 kernels. */
async function narrowed(gpu: Gpu, { name, matrix, maxShardBytes }: System) {
  const { n, weight } = matrix;
  const lower = await readLower(gpu, matrix);
  const high = new Float32Array(n * (n + 1) / 2);
  const low = new Float32Array(high.length);
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j <= i; j++, at++) {
      high[at] = lower[i * n + j];
      low[at] = lower[i * n + j] - high[at];
    }
  }
  const hi = panelsFrom(gpu, `${name} high`, n, "f32", high, { maxShardBytes });
  const lo = panelsFrom(gpu, `${name} low`, n, "f32", low, { maxShardBytes });
  const narrow: SpdMatrix = {
    n,
    weight,
    real: "f32",
    blocks: hi.panels.map((p, i) => ({ ...p, lo: lo.panels[i].storage })),
  };
  return { matrix: narrow, dispose: () => [hi, lo].forEach((p) => freePanels(gpu, p)) };
}

/** Columns that were added to a matrix or taken from it, with the sign of each: A + Σ s x xᵀ. */
export interface Changes {
  x: Float64Array;
  signs: number[];
}

/** The solver around a preconditioner and the exact matrix, all of which it owns. */
export function compensatedFactor(gpu: Gpu, owned: Owned, facts: FactorFacts, changes?: Changes): SpdFactor {
  const { hi, lo, rest, l, scale } = owned;
  const { name, n, weight } = facts;
  const solver = new TriangularSolver(gpu, l);
  const product = new SymmetricOperator(gpu, hi, lo, rest);
  let { conditionEstimate } = facts;
  let { x: changed, signs } = changes ?? { x: new Float64Array(), signs: [] };
  // What was added or taken away is a product on the host in f64: few columns beside n.
  const multiply: Operator = async (columns, m) => {
    const y = await product.multiply(columns, m);
    signs.forEach((sign, r) => {
      const v = changed.subarray(r * n, (r + 1) * n);
      for (let c = 0; c < m * n; c += n) {
        let s = 0;
        for (let i = 0; i < n; i++) s += v[i] * columns[c + i];
        s *= sign / weight;
        for (let i = 0; i < n; i++) y[c + i] += s * v[i];
      }
    });
    return y;
  };
  const precondition: Operator = async (columns, m) => {
    const scaled = scaleColumns(columns, scale);
    const sizes = Array.from({ length: m }, (_, c) => powerOfTwo(scaled.subarray(c * n, (c + 1) * n)));
    const z = await solver.solve(scaled.map((v, i) => v / sizes[Math.floor(i / n)]), m);
    return scaleColumns(z, scale).map((v, i) => v * sizes[Math.floor(i / n)]);
  };
  let lastSolve: SolveReport = { iterations: 0 };
  let norm: number | undefined;
  const dispose = () => {
    solver.dispose();
    product.dispose();
    [hi, lo, l].forEach((p) => p && freePanels(gpu, p));
  };
  return {
    ...facts,
    get conditionEstimate() {
      return conditionEstimate;
    },
    route: "compensated",
    get lastSolve() {
      return lastSolve;
    },
    async solve(b, m = 1) {
      const columns = checkColumns(name, n, b, m);
      norm ??= await estimateNorm(multiply, n);
      const system = { name, n, multiply, precondition, norm };
      const { x, residual, iterations } = await conjugateGradients(system, columns, m);
      lastSolve = { residual, iterations };
      return x.map((v) => v / weight);
    },
    async update(x, m = 1, sign = 1) {
      const columns = checkColumns(name, n, x, m);
      if (sign < 0) await checkDowndate(name, n, columns, m, this.solve);
      // The preconditioner may be rough: where f32 runs into rounding, its pivot is set to the least allowed.
      const scaled = scaleColumns(columns, scale, 1 / Math.sqrt(weight));
      conditionEstimate = conditionFrom((await updatePanels(gpu, l, scaled, m, sign)).diagonal, scale);
      changed = Float64Array.from([...changed, ...columns]);
      signs = [...signs, ...Array.from({ length: m }, () => sign)];
      norm = undefined;
    },
    async pack() {
      const parts: Parts = { scale, rest, l: await readPacked(gpu, l), hi: await readPacked(gpu, hi) };
      if (lo) parts.lo = await readPacked(gpu, lo);
      if (signs.length > 0) Object.assign(parts, { changed, signs: Float32Array.from(signs) });
      return packParts({ ...facts, route: "compensated", conditionEstimate }, parts);
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}
