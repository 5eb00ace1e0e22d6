/**
 * The direct route: Cholesky in native f64 on the device, solves by substitution. Also the f32
 * factorisation that the compensated route uses as a preconditioner.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Real } from "../kernels/linalg.ts";
import { bufferFrom } from "./buffers.ts";
import type { SpdFactor } from "./cholesky.ts";
import { recordCholesky } from "./factorize.ts";
import { PivotError } from "./host.ts";
import {
  checkColumns,
  conditionFrom,
  padOnes,
  readDiagonal,
  recordDiagonal,
  regularise,
  type Regularised,
  scaleColumns,
  type System,
} from "./matrix.ts";
import { packParts, readPacked } from "./pack.ts";
import { createPanels, freePanels, type Panels, recordLoad, rowBlocks } from "./panels.ts";
import { TriangularSolver } from "./triangular.ts";
import { checkDowndate, updatePanels } from "./update.ts";

/** The factor of the scaled system, or the column and pivot it failed at. */
export type Factored = { l: Panels; diagonal: Float64Array | Float32Array } | {
  column: number;
  pivot: number;
};

/** Copies, scales and factors a system; the diagonal grows by the share `extra`. One wait. */
export async function factorScaled(
  gpu: Gpu,
  { name, matrix, maxShardBytes }: System,
  { diagonal, scale }: Regularised,
  real: Real,
  extra = 0,
): Promise<Factored> {
  const l = createPanels(gpu, name, matrix.n, real, maxShardBytes);
  const scaled = diagonal.map((v, i) => v * scale[i] ** 2 * (1 + extra));
  const pivots = padOnes(real === "f64" ? scaled : Float32Array.from(scaled), l.padded);
  const diagonalBuffer = bufferFrom(gpu, `diagonal of ${name}`, pivots);
  const scaleBuffer = bufferFrom(gpu, `scale of ${name}`, padOnes(scale, l.padded));
  const status = gpu.memory.alloc(16, `status of ${name}`, "linalg");
  const r = gpu.recorder();
  recordLoad(r, l, matrix, { scale: scaleBuffer, diagonal: diagonalBuffer });
  recordCholesky(r, l, status);
  recordDiagonal(r, { n: matrix.n, real, blocks: rowBlocks(l) }, diagonalBuffer);
  using plan = r.finish(`factor ${name}`);
  plan.run();
  const [words, factored] = await gpu.read({ buffer: status, bytes: 8 }, { buffer: diagonalBuffer });
  [diagonalBuffer, scaleBuffer, status].forEach((b) => gpu.memory.free(b));
  const [failed] = new Uint32Array(words);
  if (failed !== 0) {
    freePanels(gpu, l);
    const column = failed - 1;
    return { column, pivot: new Float32Array(words)[1] / scale[column] ** 2 * matrix.weight };
  }
  return { l, diagonal: real === "f64" ? new Float64Array(factored) : new Float32Array(factored) };
}

/** Factors in f64. @throws {GpuError} without shader-f64; {PivotError} at a pivot that is not positive */
export async function factorF64(gpu: Gpu, system: System): Promise<SpdFactor> {
  const { name, matrix, jitter } = system;
  if (!gpu.numerics.f64) {
    throw new GpuError(`Cannot factor ${name} in f64: the device has no f64`, 'Use the route "compensated"');
  }
  const regular = regularise(system, await readDiagonal(gpu, matrix));
  const made = await factorScaled(gpu, system, regular, "f64");
  if ("column" in made) throw new PivotError(name, matrix.n, made.column, made.pivot, jitter);
  return f64Factor(gpu, made.l, {
    name,
    n: matrix.n,
    jitter,
    shift: regular.shift,
    weight: matrix.weight,
    conditionEstimate: conditionFrom(made.diagonal, regular.scale),
  }, regular.scale);
}

/** What is known about a factor beside its numbers. */
export interface FactorFacts {
  name: string;
  n: number;
  jitter: number;
  shift: number;
  weight: number;
  conditionEstimate: number;
}

/** The solver around a scaled f64 factor, which it owns. */
export function f64Factor(gpu: Gpu, l: Panels, facts: FactorFacts, scale: Float32Array): SpdFactor {
  const solver = new TriangularSolver(gpu, l);
  const { name, n, weight } = facts;
  let { conditionEstimate } = facts;
  const dispose = () => {
    solver.dispose();
    freePanels(gpu, l);
  };
  return {
    ...facts,
    get conditionEstimate() {
      return conditionEstimate;
    },
    route: "f64",
    lastSolve: { iterations: 0 },
    async solve(b, m = 1) {
      const x = await solver.solve(scaleColumns(checkColumns(name, n, b, m), scale), m);
      return scaleColumns(x, scale, 1 / weight);
    },
    async update(x, m = 1, sign = 1) {
      const columns = checkColumns(name, n, x, m);
      if (sign < 0) await checkDowndate(name, n, columns, m, this.solve);
      const scaled = scaleColumns(columns, scale, 1 / Math.sqrt(weight));
      const { diagonal, failed } = await updatePanels(gpu, l, scaled, m, sign);
      conditionEstimate = conditionFrom(diagonal, scale);
      if (failed) {
        throw new PivotError(
          name,
          n,
          failed.column,
          failed.pivot / scale[failed.column] ** 2 * weight,
          facts.jitter,
        );
      }
    },
    async pack() {
      return packParts({ ...facts, route: "f64", conditionEstimate }, { scale, l: await readPacked(gpu, l) });
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}
