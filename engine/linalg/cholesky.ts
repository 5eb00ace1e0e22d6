/**
 * Solving with a symmetric positive definite matrix, above all the second moment C of a layer's keys:
 * factor once, then C⁻¹k for every edit. Three routes solve the same regularised system
 *
 *     (C + ρ·tr(C)/n · I) x = b        (locate-and-edit guide, section 13, rule 3)
 *
 * "f64": blocked Cholesky in native f64 on the device; "compensated": an f32 factor as preconditioner of
 * conjugate gradients with compensated products; "host": plain f64 TypeScript, for tiny systems.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { describe, matrixOf } from "../tensor/tensor.ts";
import { factorCompensated } from "./compensated.ts";
import { factorF64 } from "./native.ts";
import { factorHost } from "./tiny.ts";
import { type SpdMatrix, tensorMatrix } from "./matrix.ts";
import type { Sign } from "./update.ts";

/** How a factor solves. */
export type Route = "f64" | "compensated" | "host";

/** Options of {@link factorSpd}. */
export interface FactorOptions {
  /** Names the matrix in errors. */
  name: string;
  /** Default "auto": host up to n = 64, else f64 where the device has it, else compensated. */
  route?: Route | "auto";
  /** ρ: the share of the mean diagonal added to the diagonal. Default 1e-6. */
  jitter?: number;
  /** Low words of a two-float C: the matrix is C + lo. Same shape, f32. */
  lo?: Tensor;
  /** Largest buffer in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
}

/** How the last {@link SpdFactor.solve} went. */
export interface SolveReport {
  /** Largest ‖b − Ax‖/‖b‖ over the columns; undefined on the direct routes, which do not form it. */
  residual?: number;
  /** Conjugate gradient steps; 0 on the direct routes. */
  iterations: number;
}

/** A factored matrix A = C + shift·I. */
export interface SpdFactor extends Disposable {
  readonly name: string;
  readonly n: number;
  readonly route: Route;
  /** ρ as asked for. */
  readonly jitter: number;
  /** What was added to the diagonal of C: ρ·tr(C)/n. */
  readonly shift: number;
  /** Lower bound of the condition number of A: the squared ratio of the factor's diagonal. */
  readonly conditionEstimate: number;
  /**
   * X of A X = B. `b` holds m columns of length n one after another (a row-major [m, n] array of keys).
   * Direct routes: backward error near n·2⁻⁵³. Compensated: ‖b − Ax‖ ≤ 1e-10·‖b‖, or the limit of two-float
   * numbers, 1e-13·‖A‖‖x‖, where A is too ill-conditioned for that.
   * @throws {GpuError} when sizes do not fit, a value is not finite, or the iteration stops short
   */
  solve(b: Float64Array | Float32Array, m?: number): Promise<Float64Array>;
  readonly lastSolve: SolveReport;
  /**
   * Turns A into A + X Xᵀ, or with sign −1 into A − X Xᵀ; `x` holds m columns of length n. Takes 3·n²·m
   * operations, factoring anew n³/3. The shift stays what it was.
   * @throws {GpuError} when sizes do not fit, or what is left is not positive definite: then A is unchanged
   */
  update(x: Float64Array | Float32Array, m?: number, sign?: Sign): Promise<void>;
  /** The factor as bytes, for a cache; see {@link unpackFactor}. */
  pack(): Promise<Uint8Array<ArrayBuffer>>;
  dispose(): void;
}

/**
 * Factors C + ρ·tr(C)/n·I. Reads the lower triangle of C, which may be freed afterwards.
 * @param C [n, n] f32 or f64, or any {@link SpdMatrix} such as a second moment
 * @throws {GpuError} when C is not square, or not positive definite even so: the column, pivot and remedy
 */
export async function factorSpd(gpu: Gpu, C: Tensor | SpdMatrix, options: FactorOptions): Promise<SpdFactor> {
  const { name, route = "auto", jitter = 1e-6 } = options;
  if (!(jitter >= 0)) throw new GpuError(`Cannot factor ${name} with a jitter of ${jitter}`);
  if ("shape" in C) {
    const { rows, cols } = matrixOf(C);
    if (rows !== cols) throw new GpuError(`Cannot factor ${describe(C)}: it is not square`);
  }
  const matrix = "shape" in C ? tensorMatrix(C, options.lo) : C;
  const system = { name, matrix, jitter, maxShardBytes: options.maxShardBytes };
  switch (route === "auto" ? chooseRoute(gpu, matrix.n) : route) {
    case "host":
      return await factorHost(gpu, system);
    case "f64":
      return await factorF64(gpu, system);
    case "compensated":
      return await factorCompensated(gpu, system);
  }
}

/** What "auto" means on a device. */
export function chooseRoute(gpu: Gpu, n: number): Route {
  if (n <= 64) return "host";
  return gpu.numerics.f64 ? "f64" : "compensated";
}
