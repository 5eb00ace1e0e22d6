/** Dense products in host f64, blocked for the caches of a processor: about 2 GFLOP/s in plain TypeScript. */

/** Elements of a row that stay in the first-level cache with seven others. */
const STRIP = 512;

/**
 * out[i] += Σ_j a[i, columns[j]] · rows[j] for rows of `length` numbers; row i of `out` starts at starts[i].
 * @param a row-major, `width` numbers a row, one row an entry of `starts`
 */
export function multiplyRows(
  a: Float64Array,
  width: number,
  columns: readonly number[],
  rows: readonly Float64Array[],
  length: number,
  out: Float64Array,
  starts: readonly number[],
): void {
  const K = columns.length;
  const none = new Float64Array(length);
  for (let from = 0; from < length; from += STRIP) {
    const end = Math.min(length, from + STRIP);
    for (let j = 0; j < K; j += 4) {
      const [r0, r1, r2, r3] = [0, 1, 2, 3].map((o) => rows[j + o] ?? none);
      const [c0, c1, c2, c3] = [0, 1, 2, 3].map((o) => columns[j + o] ?? -1);
      const at = (i: number, c: number) => c < 0 ? 0 : a[i * width + c];
      let i = 0;
      for (; i + 1 < starts.length; i += 2) {
        const p = starts[i], q = starts[i + 1];
        const p0 = at(i, c0), p1 = at(i, c1), p2 = at(i, c2), p3 = at(i, c3);
        const q0 = at(i + 1, c0), q1 = at(i + 1, c1), q2 = at(i + 1, c2), q3 = at(i + 1, c3);
        for (let x = from; x < end; x++) {
          const b0 = r0[x], b1 = r1[x], b2 = r2[x], b3 = r3[x];
          out[p + x] += p0 * b0 + p1 * b1 + p2 * b2 + p3 * b3;
          out[q + x] += q0 * b0 + q1 * b1 + q2 * b2 + q3 * b3;
        }
      }
      if (i < starts.length) {
        const p = starts[i];
        const p0 = at(i, c0), p1 = at(i, c1), p2 = at(i, c2), p3 = at(i, c3);
        for (let x = from; x < end; x++) out[p + x] += p0 * r0[x] + p1 * r1[x] + p2 * r2[x] + p3 * r3[x];
      }
    }
  }
}
