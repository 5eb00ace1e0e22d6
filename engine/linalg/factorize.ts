/**
 * Blocked right-looking Cholesky factorisation on row panels, in place (Golub & Van Loan, Matrix
 * Computations, 4.2.9). Outer blocks of 128 columns make the trailing update long in k; inner blocks of 32
 * keep the serial part small. All of it is one plan without host contact.
 */
import type { GpuBuffer } from "../gpu/memory.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { choleskyBlock, choleskyPanel, type Real } from "../kernels/linalg.ts";
import { panelOf, type Panels, realBytes, recordRankUpdate, TILE } from "./panels.ts";

/** Columns a diagonal block has: 8 KiB of workgroup memory in f64. */
const INNER = 32;
/** Columns gathered before the trailing triangle is updated. */
const OUTER = 128;

/**
 * The smallest pivot of a matrix scaled to a diagonal near 1 that is not rounding noise: the n updates of a
 * pivot leave an error near n·2⁻⁵³. A preconditioner may be noisy: there one rounding is the limit.
 */
export function leastPivot(n: number, real: Real): number {
  return real === "f64" ? n * 2 ** -53 : 2 ** -24;
}

/**
 * Records the factorisation of the lower triangle `a`, scaled to a diagonal near 1, into L in its place.
 * `status` (8 bytes, zero) receives the failed column + 1 and its pivot as f32; after a failure every
 * later dispatch returns at once.
 */
export function recordCholesky(r: Recorder, a: Panels, status: GpuBuffer): void {
  const { padded, real } = a;
  const least = leastPivot(a.n, real);
  const width = Math.min(OUTER, padded);
  const pt = r.temp(width * padded * realBytes(real), `${a.label} columns`);
  r.gated(status, () => {
    for (let k0 = 0; k0 < padded; k0 += OUTER) {
      const end = Math.min(k0 + OUTER, padded);
      for (let k = k0; k < end; k += INNER) {
        const slot = k - k0;
        const home = panelOf(a, k);
        const block = { k0: k, slot, ld: padded };
        r.dispatch(choleskyBlock[real], {
          bind: { panel: home.storage, pt, status },
          params: { ...block, panelRow: home.row, panelLd: home.ld, least },
          grid: [1, 1, 1],
        });
        const below = k + INNER;
        for (const panel of a.panels) {
          const rowBegin = Math.max(panel.row, below);
          const rowEnd = panel.row + panel.rows;
          if (rowBegin >= rowEnd) continue;
          r.dispatch(choleskyPanel[real], {
            bind: { panel: panel.storage, pt },
            params: { ...block, rowBegin, rowEnd, panelRow: panel.row, panelLd: panel.ld },
            grid: [Math.ceil((rowEnd - rowBegin) / TILE), 1, 1],
          });
        }
        if (below < end) {
          const columns = { storage: pt, offset: slot * padded, K: INNER, ld: padded, last: padded - 1 };
          recordRankUpdate(r, a, columns, { epilogue: "minus", from: below, colEnd: end });
        }
      }
      if (end < padded) {
        const columns = { storage: pt, offset: 0, K: end - k0, ld: padded, last: padded - 1 };
        recordRankUpdate(r, a, columns, { epilogue: "minus", from: end });
      }
    }
  });
}
