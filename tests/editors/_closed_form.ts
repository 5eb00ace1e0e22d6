/**
 * What the tests of MEMIT and its kin share: a layer's equations with a C that is not the identity, and their
 * solution the long way, with dense F×F matrices in f64.
 */
import type { LayerProblem, LayerUpdate } from "../../editors/spread.ts";
import { type Statistics, statisticsOf } from "../../editors/statistics.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import type { Model } from "../../engine/models/model.ts";
import { normals } from "../engine/ops/_reference.ts";
import { smallStatistics } from "./_statistics.ts";

/** Widths of keys and values. */
export const F = 48, D = 10;

/** C as it is. */
const PLAIN = { mom2_jitter: 0 };

/** A layer's equations with n facts, and C as a dense matrix. */
export interface Equations<H> {
  problem: LayerProblem<H> & { memory?: undefined };
  statistics: Statistics;
  C: Float64Array;
}

/** Seeded equations; dispose the statistics. Without jitter, as the references have none. */
export function equations<H>(gpu: Gpu, n: number, hparams: H): Equations<H & typeof PLAIN> {
  const layer = smallStatistics(F);
  const statistics = statisticsOf(gpu, [layer]);
  const keys = normals(n * F, 71), residuals = normals(n * D, 72);
  // Of a model these updates need the device only.
  const model = { gpu } as Model;
  return {
    problem: {
      model,
      layer: layer.origin.layer,
      n,
      keys,
      residuals,
      hparams: { ...hparams, ...PLAIN },
      statistics,
    },
    statistics,
    C: square(layer.lower),
  };
}

/** The symmetric matrix of a lower triangle. */
export function square(lower: ArrayLike<number>): Float64Array {
  const n = (Math.sqrt(8 * lower.length + 1) - 1) / 2;
  const a = new Float64Array(n * n);
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j <= i; j++, at++) a[i * n + j] = a[j * n + i] = lower[at];
  }
  return a;
}

/** ΔW [D, F] of an update's columns. */
export function dense({ left, right }: LayerUpdate, n: number): Float64Array {
  const d = left.length / n, f = right.length / n;
  return Float64Array.from({ length: d * f }, (_, at) => {
    const i = Math.floor(at / f), j = at % f;
    let sum = 0;
    for (let e = 0; e < n; e++) sum += left[e * d + i] * right[e * f + j];
    return sum;
  });
}

/** λC + K Kᵀ for keys one after another. */
export function bracket(lambda: number, C: Float64Array, keys: Float64Array): Float64Array {
  return C.map((c, at) => {
    const i = Math.floor(at / F), j = at % F;
    let sum = lambda * c;
    for (let e = 0; e < keys.length; e += F) sum += keys[e + i] * keys[e + j];
    return sum;
  });
}

/** A·B of row-major matrices, A with `inner` columns. */
export function times(A: ArrayLike<number>, B: ArrayLike<number>, inner: number): Float64Array {
  const rows = A.length / inner, cols = B.length / inner;
  return Float64Array.from({ length: rows * cols }, (_, at) => {
    const i = Math.floor(at / cols), j = at % cols;
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += A[i * inner + k] * B[k * cols + j];
    return sum;
  });
}

/** The transpose of a row-major matrix of so many columns. */
export function transpose(A: ArrayLike<number>, cols: number): Float64Array {
  const rows = A.length / cols;
  return Float64Array.from({ length: A.length }, (_, at) => A[at % rows * cols + Math.floor(at / rows)]);
}

/** ‖A‖ in the Frobenius norm. */
export const frobenius = (A: ArrayLike<number>) =>
  Math.sqrt(Array.from(A).reduce((sum, v) => sum + v * v, 0));
