/** What op tests compare with: seeded values, tolerances with their reasons, finite differences. */
import { ok, strictEqual } from "node:assert/strict";

/**
 * Error of an f32 dot product of length k relative to the product of the norms: each of k roundings is
 * 2⁻²⁴ = 6e-8, signs are random, so they grow like √k; the factor to 1e-6 is for driver functions and chance.
 */
export function dotTolerance(k: number): number {
  return 1e-6 * Math.sqrt(Math.max(1, k));
}

/** An elementwise formula with two calls of the driver's exp, which is off by up to 10 ulp (1.2e-6). */
export const ELEMENTWISE = 4e-6;

/** One or two correctly rounded f32 operations. */
export const ROUNDED = 2.5e-7;

/** Uniform numbers in [0, 1) from a seed (mulberry32). */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normal numbers rounded to f32, so that device and reference start from the same values. */
export function normals(n: number, seed: number, scale = 1): Float64Array {
  const next = uniform(seed);
  const one = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return Float64Array.from({ length: n }, () => Math.fround(scale * one()));
}

/** Rounds to 16 bits as stored in checkpoints: the packed bytes, and the values they stand for. */
export function pack(
  values: Float64Array,
  dtype: "f16" | "bf16",
): { bytes: Uint8Array; values: Float64Array } {
  if (dtype === "f16") {
    const halves = Float16Array.from(values);
    return { bytes: new Uint8Array(halves.buffer), values: Float64Array.from(halves) };
  }
  const words = Uint16Array.from(new Uint32Array(Float32Array.from(values).buffer), (bits) => bits >>> 16);
  const whole = Uint32Array.from(words, (w) => w << 16);
  return { bytes: new Uint8Array(words.buffer), values: Float64Array.from(new Float32Array(whole.buffer)) };
}

/**
 * Every |actual − expected| is at most `tolerance` times the largest |expected|, or times 1 if that is less:
 * inputs of op tests are of order 1, and sums that cancel keep the error of their terms.
 */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
): void {
  strictEqual(actual.length, expected.length, `${what}: length`);
  let scale = 1;
  for (let i = 0; i < expected.length; i++) scale = Math.max(scale, Math.abs(expected[i]));
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i] - expected[i]);
    ok(
      error <= tolerance * scale,
      `${what}[${i}] is ${actual[i]}, expected ${expected[i]}: off by ${error}, allowed ${tolerance * scale}`,
    );
  }
}

/**
 * Gradient of a scalar f64 function by central differences. With h = 1e-4 the error is about
 * h²·f‴/6 + 1e-16·f/h, below 1e-8 for functions of order 1: far under any f32 tolerance.
 */
export function finiteDifference(f: (x: Float64Array) => number, at: Float64Array, h = 1e-4): Float64Array {
  const x = at.slice();
  return at.map((value, i) => {
    x[i] = value + h;
    const above = f(x);
    x[i] = value - h;
    const below = f(x);
    x[i] = value;
    return (above - below) / (2 * h);
  });
}
