/**
 * Eigenvalues and eigenvectors of a small symmetric tridiagonal matrix by the implicit QL iteration
 * (Wilkinson & Reinsch, tql2; Golub & Van Loan 8.3.3), in host f64.
 */
import { GpuError } from "../gpu/errors.ts";

/** Sweeps of one eigenvalue; two suffice as a rule. */
const SWEEPS = 60;

/** Eigenvalues ascending, eigenvectors as rows. Spoils `d`. @throws {GpuError} when it does not converge */
export function tridiagonalQl(
  d: Float64Array,
  beside: Float64Array,
): { values: Float64Array; vectors: Float64Array } {
  const n = d.length;
  const e = new Float64Array(n);
  e.set(beside.subarray(0, n - 1));
  const v = new Float64Array(n * n);
  for (let i = 0; i < n; i++) v[i * n + i] = 1;
  for (let l = 0; l < n; l++) {
    for (let sweep = 0;; sweep++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]) > Number.EPSILON * (Math.abs(d[m]) + Math.abs(d[m + 1]))) m++;
      if (m === l) break;
      if (sweep === SWEEPS) {
        throw new GpuError(`Cannot find eigenvalue ${l} of ${n}: it did not converge in ${SWEEPS} sweeps`);
      }
      let g = (d[l + 1] - d[l]) / (2 * e[l]);
      let r = Math.hypot(g, 1);
      g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r));
      let s = 1, c = 1, p = 0;
      let i = m - 1;
      for (; i >= l; i--) {
        let f = s * e[i];
        const b = c * e[i];
        e[i + 1] = r = Math.hypot(f, g);
        if (r === 0) {
          d[i + 1] -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        for (let k = 0; k < n; k++) {
          f = v[(i + 1) * n + k];
          v[(i + 1) * n + k] = s * v[i * n + k] + c * f;
          v[i * n + k] = c * v[i * n + k] - s * f;
        }
      }
      if (r === 0 && i >= l) continue;
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  const order = Array.from(d.keys()).sort((a, b) => d[a] - d[b]);
  const vectors = new Float64Array(n * n);
  order.forEach((from, to) => vectors.set(v.subarray(from * n, (from + 1) * n), to * n));
  return { values: Float64Array.from(order, (i) => d[i]), vectors };
}
