/** The host route: systems too small to be worth a dispatch, factored in plain f64. */
import type { Gpu } from "../gpu/device.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import type { SpdFactor } from "./cholesky.ts";
import { choleskySolve, PivotError, tryCholesky } from "./host.ts";
import { leastPivot } from "./factorize.ts";
import {
  checkColumns,
  conditionFrom,
  regularise,
  scaleColumns,
  type SpdMatrix,
  type System,
} from "./matrix.ts";
import type { FactorFacts } from "./native.ts";
import { packParts } from "./pack.ts";
import { realBytes } from "./panels.ts";
import { checkDowndate, updateHost } from "./update.ts";

/** The lower triangle of a stored matrix, low words added, as a dense n×n array. A wait a row block. */
export async function readLower(gpu: Gpu, { n, real, blocks }: SpdMatrix): Promise<Float64Array> {
  const a = new Float64Array(n * n);
  for (const { storage, lo, row, rows, ld } of blocks) {
    const bytes = rows * ld * realBytes(real);
    for (const words of lo ? [storage, lo] : [storage]) {
      const [raw] = await gpu.read({ buffer: words as GpuBuffer, bytes });
      const values = real === "f64" ? new Float64Array(raw) : new Float32Array(raw);
      for (let i = row; i < Math.min(n, row + rows); i++) {
        for (let j = 0; j <= i; j++) a[i * n + j] += values[(i - row) * ld + j];
      }
    }
  }
  return a;
}

/** Factors on the host. @throws {PivotError} at a pivot that is not positive */
export async function factorHost(gpu: Gpu, system: System): Promise<SpdFactor> {
  const { name, matrix, jitter } = system;
  const { n, weight } = matrix;
  const a = await readLower(gpu, matrix);
  const { diagonal, shift, scale } = regularise(
    system,
    Float64Array.from({ length: n }, (_, i) => a[i * n + i]),
  );
  for (let i = 0; i < n; i++) {
    a[i * n + i] = diagonal[i];
    for (let j = 0; j <= i; j++) a[i * n + j] *= scale[i] * scale[j];
  }
  const failed = tryCholesky(a, n, leastPivot(n, "f64"));
  if (failed) {
    throw new PivotError(name, n, failed.column, failed.pivot / scale[failed.column] ** 2 * weight, jitter);
  }
  const pivots = Float64Array.from({ length: n }, (_, i) => a[i * n + i]);
  return hostFactor(
    a,
    { name, n, jitter, shift, weight, conditionEstimate: conditionFrom(pivots, scale) },
    scale,
  );
}

/** The solver around a dense host factor of the scaled system. */
export function hostFactor(l: Float64Array, facts: FactorFacts, scale: Float32Array): SpdFactor {
  const { name, n, weight } = facts;
  const dispose = () => {};
  return {
    ...facts,
    get conditionEstimate() {
      return conditionFrom(Float64Array.from({ length: n }, (_, i) => l[i * n + i]), scale);
    },
    route: "host",
    lastSolve: { iterations: 0 },
    solve(b, m = 1) {
      const scaled = checkColumns(name, n, b, m).map((v, i) => v * scale[i % n]);
      return Promise.resolve(choleskySolve(l, n, scaled, m).map((v, i) => v * scale[i % n] / weight));
    },
    async update(x, m = 1, sign = 1) {
      const columns = checkColumns(name, n, x, m);
      if (sign < 0) await checkDowndate(name, n, columns, m, this.solve);
      updateHost(l, n, scaleColumns(columns, scale, 1 / Math.sqrt(weight)), m, sign);
    },
    pack() {
      const packed = new Float64Array(n * (n + 1) / 2);
      for (let i = 0; i < n; i++) packed.set(l.subarray(i * n, i * n + i + 1), i * (i + 1) / 2);
      return Promise.resolve(
        packParts({ ...facts, route: "host", conditionEstimate: this.conditionEstimate }, {
          scale,
          l: packed,
        }),
      );
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}
