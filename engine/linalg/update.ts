/**
 * Rank-k updates and downdates of a Cholesky factor, L Lᵀ ± X Xᵀ, by rotations in blocks of 64 columns: 3·n²k
 * operations instead of a factorisation's n³/3 (Golub & Van Loan 6.5.4).
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import { rotateBlock, rotateRows } from "../kernels/linalg_update.ts";
import { bufferFrom } from "./buffers.ts";
import { leastPivot } from "./factorize.ts";
import { tryCholesky } from "./host.ts";
import { readDiagonal, type SpdMatrix } from "./matrix.ts";
import { panelOf, type Panels, realBytes, rowBlocks, TILE } from "./panels.ts";

/** +1 adds X Xᵀ, −1 takes it away. */
export type Sign = 1 | -1;

/**
 * Refuses a downdate that leaves no positive definite matrix: A − X Xᵀ is one exactly when I − Xᵀ A⁻¹ X is.
 * @param solve A⁻¹ X for the m columns
 * @throws {GpuError} naming the matrix and the column of X
 */
export async function checkDowndate(
  name: string,
  n: number,
  x: Float64Array,
  m: number,
  solve: (x: Float64Array, m: number) => Promise<Float64Array>,
): Promise<void> {
  const y = await solve(x, m);
  const left = new Float64Array(m * m);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j <= i; j++) {
      let s = i === j ? 1 : 0;
      for (let k = 0; k < n; k++) s -= x[i * n + k] * y[j * n + k];
      left[i * m + j] = s;
    }
  }
  const failed = tryCholesky(left, m, n * Number.EPSILON);
  if (failed) {
    throw new GpuError(
      `Cannot take ${m} columns out of ${name} [${n}, ${n}]: column ${failed.column} of them has the pivot ` +
        `${failed.pivot.toPrecision(3)}, so what is left is not positive definite to working precision`,
      "Take out only what was put in, or factor what is left with a larger jitter",
    );
  }
}

/**
 * Turns the factor in place; `x` holds m columns of length n in its scaled units. Returns the new diagonal, and
 * the column and pivot where a downdate ran into rounding, whose pivot was then set to the least allowed.
 */
export async function updatePanels(
  gpu: Gpu,
  l: Panels,
  x: Float64Array,
  m: number,
  sign: Sign,
): Promise<{ diagonal: Float64Array; failed?: { column: number; pivot: number } }> {
  const { n, padded, real } = l;
  // Vectors of zeros fill the last four: they turn nothing.
  const count = 4 * Math.ceil(m / 4);
  const values = real === "f64" ? new Float64Array(count * padded) : new Float32Array(count * padded);
  for (let r = 0; r < m; r++) values.set(x.subarray(r * n, (r + 1) * n), r * padded);
  using scratch = new DisposableStack();
  const free = (b: ReturnType<typeof bufferFrom>) => gpu.memory.free(b);
  const vectors = scratch.adopt(bufferFrom(gpu, `update of ${l.label}`, values), free);
  const bytes = 2 * TILE * count * realBytes(real);
  const turns = scratch.adopt(gpu.memory.alloc(bytes, `turns of ${l.label}`, "linalg"), free);
  const status = scratch.adopt(gpu.memory.alloc(16, `status of ${l.label}`, "linalg"), free);
  const r = gpu.recorder();
  const variant = { DOWN: sign < 0 };
  for (let k0 = 0; k0 < padded; k0 += TILE) {
    const home = panelOf(l, k0);
    const shared = { k0, count, ld: padded };
    r.dispatch(rotateBlock[real], {
      variant,
      bind: { panel: home.storage, x: vectors, turns, status },
      params: { ...shared, panelRow: home.row, panelLd: home.ld, least: leastPivot(n, real) },
      grid: [1, 1, 1],
    });
    for (const panel of l.panels) {
      const rowBegin = Math.max(panel.row, k0 + TILE);
      const rowEnd = panel.row + panel.rows;
      if (rowBegin >= rowEnd) continue;
      r.dispatch(rotateRows[real], {
        variant,
        bind: { panel: panel.storage, x: vectors, turns },
        params: { ...shared, rowBegin, rowEnd, panelRow: panel.row, panelLd: panel.ld },
        grid: [Math.ceil((rowEnd - rowBegin) / 4 / 64), 1, 1],
      });
    }
  }
  using plan = r.finish(`update ${l.label}`);
  plan.run();
  const matrix: SpdMatrix = { n, real, weight: 1, blocks: rowBlocks(l) };
  const diagonal = await readDiagonal(gpu, matrix);
  const [words] = await gpu.read({ buffer: status, bytes: 8 });
  const [column] = new Uint32Array(words);
  if (column === 0) return { diagonal };
  return { diagonal, failed: { column: column - 1, pivot: new Float32Array(words)[1] } };
}

/** The same on the host, for a dense lower triangle. */
export function updateHost(l: Float64Array, n: number, columns: Float64Array, m: number, sign: Sign): void {
  const x = columns.slice();
  for (let r = 0; r < m * n; r += n) {
    for (let j = 0; j < n; j++) {
      const d = l[j * n + j], v = x[r + j];
      const root = sign > 0 ? Math.hypot(d, v) : Math.sqrt((d - v) * (d + v));
      l[j * n + j] = root;
      for (let i = j + 1; i < n; i++) {
        const old = l[i * n + j];
        if (sign > 0) {
          l[i * n + j] = (d * old + v * x[r + i]) / root;
          x[r + i] = (d * x[r + i] - v * old) / root;
        } else {
          const next = l[i * n + j] = (d * old - v * x[r + i]) / root;
          x[r + i] = (root * x[r + i] - v * next) / d;
        }
      }
    }
  }
}
