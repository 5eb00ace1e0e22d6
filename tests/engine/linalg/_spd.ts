/**
 * Devices, matrices and measures of the solver tests. Matrices have a known spectrum: H D H with a few
 * Householder reflections H, so the largest eigenvalue is 1 and the condition number is known.
 */
import { Gpu } from "../../../engine/gpu/device.ts";
import { symmetricTimes } from "../../../engine/linalg/host.ts";
import type { Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { normals } from "../ops/_reference.ts";

/** The three kinds of device: with f64, without, and without subgroups either. */
export const DEVICES = {
  native: () => (native ??= Gpu.open()),
  single: () => (single ??= Gpu.open({ without: ["shader-f64"] })),
  portable: () => (portable ??= Gpu.open({ without: ["subgroups", "shader-f64"] })),
};
let native: Promise<Gpu> | undefined;
let single: Promise<Gpu> | undefined;
let portable: Promise<Gpu> | undefined;

/** Eigenvalues from 1 downwards. */
export const SPECTRA: Record<string, (i: number, n: number) => number> = {
  "condition 1e3": (i, n) => 1e3 ** (-i / Math.max(1, n - 1)),
  "condition 1e6": (i, n) => 1e6 ** (-i / Math.max(1, n - 1)),
  "i^-1": (i) => 1 / (i + 1),
  "i^-2": (i) => 1 / (i + 1) ** 2,
};

/** A symmetric matrix with the given eigenvalues, row-major, to f64 rounding. */
export function symmetric(n: number, eigenvalue: (i: number, n: number) => number, seed = n): Float64Array {
  const a = new Float64Array(n * n);
  for (let i = 0; i < n; i++) a[i * n + i] = eigenvalue(i, n);
  for (let h = 0; h < 3; h++) {
    const v = normals(n, seed + 1000 * h);
    const vv = v.reduce((s, x) => s + x * x, 0);
    for (const [along, across] of [[1, n], [n, 1]]) {
      for (let i = 0; i < n; i++) {
        let s = 0;
        for (let k = 0; k < n; k++) s += v[k] * a[i * across + k * along];
        s *= 2 / vv;
        for (let k = 0; k < n; k++) a[i * across + k * along] -= s * v[k];
      }
    }
  }
  return a;
}

/** C in the numbers a route can be given: f32, and the f32 low words that are left over. */
export function split(a: Float64Array): { hi: Float32Array; lo: Float32Array; sum: Float64Array } {
  const hi = Float32Array.from(a);
  const lo = Float32Array.from(a, (v, i) => v - hi[i]);
  return { hi, lo, sum: a.map((_, i) => hi[i] + lo[i]) };
}

/** A + shift·I. */
export function shifted(a: ArrayLike<number>, n: number, shift: number): Float64Array {
  const b = Float64Array.from(a);
  for (let i = 0; i < n; i++) b[i * n + i] += shift;
  return b;
}

/** A symmetric f32 matrix on a device. */
export function upload(gpu: Gpu, a: Float32Array, n: number, maxShardBytes?: number): Tensor {
  return fromHost(gpu, "C", [n, n], a, { maxShardBytes });
}

/** Norm of a vector or of the difference of two. */
export function norm(a: ArrayLike<number>, b?: ArrayLike<number>): number {
  let s = 0;
  for (let i = 0; i < a.length; i++) s += (a[i] - (b?.[i] ?? 0)) ** 2;
  return Math.sqrt(s);
}

/** Column c of m columns of length n. */
export function column(x: Float64Array, n: number, c: number): Float64Array {
  return x.subarray(c * n, (c + 1) * n);
}

/** ‖b − Ax‖ for each column, in host f64. */
export function residuals(a: Float64Array, n: number, x: Float64Array, b: Float64Array, m: number): number[] {
  const ax = symmetricTimes(a, n, x, m);
  return Array.from({ length: m }, (_, c) => norm(column(ax, n, c), column(b, n, c)));
}
