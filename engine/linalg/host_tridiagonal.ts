/**
 * Householder reduction to tridiagonal form in host f64 (Golub & Van Loan 8.3.1), unblocked: for matrices too
 * small for the device, for devices that have no trustworthy wide numbers, and as the oracle of the device's.
 */
import type { Packed } from "./packed.ts";

/** T and the way back. */
export interface HostTridiagonal {
  diagonal: Float64Array;
  beside: Float64Array;
  /** Rows z of [m, n] become H z in place. */
  back(z: Float64Array, m: number): void;
}

/** Reduces a symmetric matrix. 4/3·n³ operations. */
export function tridiagonaliseHost({ n, lower }: Packed): HostTridiagonal {
  const a = new Float64Array(lower);
  const row = (i: number) => i * (i + 1) / 2;
  const diagonal = new Float64Array(n);
  const beside = new Float64Array(Math.max(0, n - 1));
  const reflectors: { v: Float64Array; tau: number }[] = [];
  for (let j = 0; j < n; j++) {
    diagonal[j] = a[row(j) + j];
    if (j + 1 >= n) break;
    let below = 0;
    for (let i = j + 2; i < n; i++) below += a[row(i) + j] ** 2;
    const alpha = a[row(j + 1) + j];
    if (below === 0) {
      beside[j] = alpha;
      continue;
    }
    const e = beside[j] = (alpha > 0 ? -1 : 1) * Math.sqrt(alpha * alpha + below);
    const tau = (e - alpha) / e;
    const v = new Float64Array(n);
    v[j + 1] = 1;
    for (let i = j + 2; i < n; i++) v[i] = a[row(i) + j] / (alpha - e);
    const w = new Float64Array(n);
    for (let i = j + 1; i < n; i++) {
      const at = row(i);
      const x = v[i];
      let s = a[at + i] * x;
      for (let k = j + 1; k < i; k++) {
        s += a[at + k] * v[k];
        w[k] += a[at + k] * x;
      }
      w[i] += s;
    }
    let dot = 0;
    for (let i = j + 1; i < n; i++) dot += w[i] * v[i];
    for (let i = j + 1; i < n; i++) w[i] = tau * w[i] - 0.5 * tau * tau * dot * v[i];
    for (let i = j + 1; i < n; i++) {
      const at = row(i);
      for (let k = j + 1; k <= i; k++) a[at + k] -= v[i] * w[k] + w[i] * v[k];
    }
    reflectors.push({ v, tau });
  }
  return {
    diagonal,
    beside,
    back(z, m) {
      for (const { v, tau } of reflectors.toReversed()) {
        for (let r = 0; r < m; r++) {
          let s = 0;
          for (let i = 0; i < n; i++) s += v[i] * z[r * n + i];
          s *= tau;
          for (let i = 0; i < n; i++) z[r * n + i] -= s * v[i];
        }
      }
    },
  };
}
