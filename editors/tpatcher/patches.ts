/** T-Patcher's patches: how they begin, and what they are when they are done (guide sections 7.1 and 7.2). */
import { seededRandom } from "../../engine/models/sample.ts";

/** Finished patches, row-major: q ↦ Vᵀ act(K q + b). */
export interface Patches {
  /** K [n, width] */
  keys: Float32Array;
  /** b [n] */
  bias: Float32Array;
  /** V [n, width] */
  values: Float32Array;
}

/** Patches in training: their values are v₀ ⊙ α. */
export interface Trained extends Patches {
  /** v₀ [n, width] */
  values: Float32Array;
  /** α [n, width] */
  alpha: Float32Array;
}

/**
 * New patches of mistakes: k = q/‖q‖² and b = 0, so that the pre-activation at q is 1.
 * @param queries [width] each: what the layer reads at the mistakes
 * @param values v₀ [n, width]; `amplify` is all of α
 */
export function newPatches(
  queries: readonly Float32Array[],
  values: Float32Array,
  amplify: number,
): Trained {
  const keys = new Float32Array(values.length);
  queries.forEach((q, i) => {
    const square = q.reduce((sum, x) => sum + x * x, 0);
    keys.set(q.map((x) => x / square), i * q.length);
  });
  const alpha = new Float32Array(values.length).fill(amplify);
  return { keys, bias: new Float32Array(queries.length), values, alpha };
}

/** Patches that are trained no more: V = v₀ ⊙ α. */
export function finishPatches({ keys, bias, values, alpha }: Trained): Patches {
  return { keys, bias, values: values.map((v, i) => v * alpha[i]) };
}

/** Seeded numbers of a standard normal distribution: v₀. */
export function normals(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

/** Rows as a matrix of an edit memory, and back. */
export function joinRows(rows: readonly Float32Array[]): { rows: number; values: Float32Array } {
  const values = new Float32Array(rows.length * rows[0].length);
  rows.forEach((row, i) => values.set(row, i * row.length));
  return { rows: rows.length, values };
}

export function splitRows({ rows, values }: { rows: number; values: Float32Array }): Float32Array[] {
  const width = values.length / rows;
  return Array.from({ length: rows }, (_, i) => values.subarray(i * width, (i + 1) * width));
}
