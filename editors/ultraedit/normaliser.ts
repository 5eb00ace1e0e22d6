/**
 * UltraEdit's lifelong normaliser (Gu et al. 2026, section 3; guide section 9): running mean and deviation of every
 * coordinate over all tokens of all turns, merged micro-batch by micro-batch as the authors' code has it,
 *
 *   d = mean_b − mean     mean += b·d/n'     M2 += b·var_b + n·b·d²/n'     std = √(M2/(n' − 1 + ε))
 *
 * with n' = n + b and var_b over b − 1, so that M2 grows by b/(b − 1) of what it would be in one go. One token has
 * no variance: the authors get NaN, here it counts as 0.
 */
import type { MemoryPart } from "../memory.ts";

/** f32's ε, the authors'. */
const EPSILON = 2 ** -23;

/** Statistics of one width; between turns they are f32, which is what an edit's memory keeps. */
export class Normaliser {
  readonly #mean: Float64Array;
  readonly #m2: Float64Array;
  #n: number;

  constructor(width: number, kept?: { n: number; mean: ArrayLike<number>; m2: ArrayLike<number> }) {
    this.#n = kept?.n ?? 0;
    this.#mean = Float64Array.from(kept?.mean ?? new Float64Array(width));
    this.#m2 = Float64Array.from(kept?.m2 ?? new Float64Array(width));
  }

  /** Sees the tokens of a micro-batch, [b, width] row-major. */
  update(x: Float64Array): void {
    const width = this.#mean.length, b = x.length / width;
    const n = this.#n + b;
    for (let c = 0; c < width; c++) {
      let mean = 0, squares = 0;
      for (let at = c; at < x.length; at += width) mean += x[at] / b;
      for (let at = c; at < x.length; at += width) squares += (x[at] - mean) ** 2;
      const variance = b > 1 ? squares / (b - 1) : 0;
      const away = mean - this.#mean[c];
      this.#mean[c] += b * away / n;
      this.#m2[c] += b * variance + this.#n * b * away ** 2 / n;
    }
    this.#n = n;
  }

  /** (x − mean)/(std + ε), [rows, width]. */
  normalise(x: Float64Array): Float64Array {
    const width = this.#mean.length;
    const std = this.#m2.map((m2) => Math.sqrt(m2 / (this.#n - 1 + EPSILON)));
    return x.map((v, at) => (v - this.#mean[at % width]) / (std[at % width] + EPSILON));
  }

  /** The tensors that {@link normaliserFrom} reads back, under this name. */
  parts(name: string): [string, { rows: number; values: Float32Array }][] {
    return [
      [name, { rows: 2, values: Float32Array.from([...this.#mean, ...this.#m2]) }],
      [`${name}.tokens`, { rows: 1, values: Float32Array.of(this.#n) }],
    ];
  }
}

/** The normaliser as the last of these parts has it, or a new one. */
export function normaliserFrom(parts: readonly MemoryPart[], name: string, width: number): Normaliser {
  const part = parts.findLast((part) => part.has(name));
  if (!part) return new Normaliser(width);
  const { values } = part.get(name)!;
  const [n] = part.get(`${name}.tokens`)!.values;
  return new Normaliser(width, { n, mean: values.subarray(0, width), m2: values.subarray(width) });
}
