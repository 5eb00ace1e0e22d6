/**
 * Householder reduction of a symmetric matrix to tridiagonal form on the device, A = H T Hᵀ, in blocks of 64
 * columns (LAPACK's dsytrd and dlatrd; Golub & Van Loan 8.3.1): half of the work is products of the trailing
 * matrix with one vector, half rank-two updates. In f64 or in two-float numbers. The reflectors stay on the
 * device and take eigenvectors of T back to those of A.
 */
import type { Gpu } from "../gpu/device.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import {
  reflectorSolve,
  tridiagonalColumn,
  tridiagonalCombine,
  tridiagonalDots,
  tridiagonalFinish,
  tridiagonalProduct,
  tridiagonalReflect,
  type Wide,
} from "../kernels/linalg_wide.ts";
import type { Packed } from "./packed.ts";
import { createPanels, freePanels, type Panels, TILE } from "./panels.ts";
import { allocWide, decodeWide, encodeWide, recordProduct, secretZero, WIDE_BYTES } from "./wide.ts";

/** T, and H as a solver of back-transformations. */
export interface Tridiagonal extends Disposable {
  readonly n: number;
  /** Diagonal of T, n numbers. */
  readonly diagonal: Float64Array;
  /** Beside the diagonal, n − 1 numbers. */
  readonly beside: Float64Array;
  /** Rows z of a buffer [m, ld] of wide numbers become H z in place: eigenvectors of A. */
  back(z: GpuBuffer, m: number): Promise<void>;
  /** Row distance that {@link back} expects: n rounded up to whole tiles. */
  readonly ld: number;
}

/** Options of {@link tridiagonalise}. */
export interface TridiagonalOptions {
  wide: Wide;
  /** Largest buffer in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
  /** Columns done of n. */
  onProgress?: (done: number, n: number) => void;
}

/**
 * Reduces A. A wait for every 64 columns, so that a caller sees progress and a driver no endless queue.
 * Memory: A's square and n²/2 to n² numbers of reflectors, 8 bytes each.
 * @throws {GpuError} when a row of tiles is over the limit
 */
export async function tridiagonalise(
  gpu: Gpu,
  name: string,
  { n, lower }: Packed,
  { wide, maxShardBytes, onProgress }: TridiagonalOptions,
): Promise<Tridiagonal> {
  using undo = new DisposableStack();
  using scratch = new DisposableStack();
  const keep = (stack: DisposableStack, b: GpuBuffer) => stack.adopt(b, (b) => gpu.memory.free(b));
  const a = scratch.adopt(
    uploadWhole(gpu, name, { n, lower }, wide, maxShardBytes),
    (a) => freePanels(gpu, a),
  );
  const ld = a.padded;
  const scalars = keep(undo, allocWide(gpu, `${name} T`, 3 * ld));
  const w = keep(scratch, allocWide(gpu, `${name} products`, TILE * ld));
  const y = keep(scratch, allocWide(gpu, `${name} column`, ld));
  const parts = keep(scratch, allocWide(gpu, `${name} parts`, ld / TILE * ld));
  const dots = keep(scratch, allocWide(gpu, `${name} dots`, 2 * TILE));
  const reflectors: GpuBuffer[] = [];
  for (let j0 = 0; j0 < n; j0 += TILE) {
    const v = keep(undo, allocWide(gpu, `${name} reflectors ${j0}…`, TILE * ld));
    reflectors.push(v);
    using plan = recordBlock(gpu, wide, n, j0, { a, v, w, y, parts, dots, scalars });
    plan.run();
    await gpu.sync();
    onProgress?.(Math.min(n, j0 + TILE), n);
  }
  const [raw] = await gpu.read({ buffer: scalars, bytes: 2 * ld * WIDE_BYTES });
  const values = decodeWide(raw, wide);
  const owned = undo.move();
  return {
    n,
    ld,
    diagonal: values.slice(0, n),
    beside: values.slice(ld, ld + n - 1),
    back: (z, m) => transformBack(gpu, wide, { n, ld, reflectors, scalars }, z, m),
    [Symbol.dispose]: () => owned.dispose(),
  };
}

/** What one block of columns works on. */
interface Work {
  a: Panels;
  v: GpuBuffer;
  w: GpuBuffer;
  y: GpuBuffer;
  parts: GpuBuffer;
  dots: GpuBuffer;
  scalars: GpuBuffer;
}

/** 64 columns from j0 on, and the update of what is right of and below them. */
function recordBlock(gpu: Gpu, wide: Wide, n: number, j0: number, work: Work) {
  const { a, v, w, y, parts, dots, scalars } = work;
  const ld = a.padded;
  const zero = secretZero(gpu, wide);
  const r = gpu.recorder();
  for (let t = 0; t < TILE && j0 + t < n; t++) {
    const j = j0 + t;
    const at = { j, t, ld };
    for (const panel of a.panels) {
      const rowBegin = Math.max(panel.row, j0);
      const rowEnd = panel.row + panel.rows;
      if (rowBegin >= rowEnd) continue;
      r.dispatch(tridiagonalColumn[wide], {
        bind: { a: panel.storage, v, w, y, ...zero },
        params: { ...at, rowBegin, rowEnd, panelRow: panel.row, panelLd: panel.ld },
        grid: [Math.ceil((rowEnd - rowBegin) / 64), 1, 1],
      });
    }
    r.dispatch(tridiagonalReflect[wide], {
      bind: { y, v, scalars, ...zero },
      params: { ...at, n },
      grid: [1, 1, 1],
    });
    // The last two columns have nothing to reflect.
    if (j + 2 >= n) continue;
    const from = Math.floor((j + 1) / TILE);
    for (const panel of a.panels) {
      const rowBegin = Math.max(panel.row, from * TILE);
      const tiles = (panel.row + panel.rows - rowBegin) / TILE;
      if (tiles <= 0) continue;
      const first = rowBegin / TILE - from;
      r.dispatch(tridiagonalProduct[wide], {
        bind: { a: panel.storage, v, parts, ...zero },
        params: {
          t,
          ld,
          rowBegin,
          colBegin: from * TILE,
          panelRow: panel.row,
          panelLd: panel.ld,
          tri: 1,
          first,
        },
        grid: [tiles * first + tiles * (tiles + 1) / 2, 1, 1],
      });
    }
    r.dispatch(tridiagonalDots[wide], {
      bind: { v, w, dots, ...zero },
      params: { t, ld, begin: from * TILE },
      grid: [2 * t, 1, 1],
    });
    r.dispatch(tridiagonalCombine[wide], {
      bind: { parts, v, dots, w, ...zero },
      params: { ...at, tileBegin: from },
      grid: [ld / 64, 1, 1],
    });
    r.dispatch(tridiagonalFinish[wide], { bind: { v, scalars, w, ...zero }, params: at, grid: [1, 1, 1] });
  }
  const from = j0 + TILE;
  for (const panel of a.panels) {
    const rows = [Math.max(panel.row, from), panel.row + panel.rows] as const;
    const to = {
      storage: panel.storage,
      ld: panel.ld,
      rows,
      cols: [from, panel.ld] as const,
      panelRow: panel.row,
      lower: true,
      subtract: true,
    };
    const [left, right] = [v, w].map((storage) => ({ storage, step: ld, lane: 1 }));
    recordProduct(r, wide, left, right, TILE, to);
    recordProduct(r, wide, right, left, TILE, to);
  }
  return r.finish(`reduce ${a.label} from column ${j0}`);
}

/** The triangle with whole tiles on the diagonal, in as few panels as the limit allows. */
function uploadWhole(
  gpu: Gpu,
  name: string,
  { n, lower }: Packed,
  wide: Wide,
  maxShardBytes?: number,
): Panels {
  const panels = createPanels(gpu, name, n, "f64", maxShardBytes, 1);
  for (const { storage, row, rows, ld } of panels.panels) {
    const values = new Float64Array(rows * ld);
    for (let i = row; i < Math.min(n, row + rows); i++) {
      const from = i * (i + 1) / 2;
      for (let j = 0; j <= i; j++) values[(i - row) * ld + j] = lower[from + j];
      for (let j = Math.max(row, i - i % TILE); j < i; j++) values[(j - row) * ld + i] = lower[from + j];
    }
    gpu.upload(storage, encodeWide(values, wide));
  }
  return panels;
}

/** Z := H₁ H₂ … Z block by block from the last: Z -= (Z Vᵀ) Tᵀ V for Z's rows. */
async function transformBack(
  gpu: Gpu,
  wide: Wide,
  { n, ld, reflectors, scalars }: { n: number; ld: number; reflectors: GpuBuffer[]; scalars: GpuBuffer },
  z: GpuBuffer,
  m: number,
): Promise<void> {
  using scratch = new DisposableStack();
  const alloc = (label: string, count: number) =>
    scratch.adopt(allocWide(gpu, label, count), (b) => gpu.memory.free(b));
  const y = alloc("reflected parts", TILE * m);
  const gram = alloc("reflector Gram", TILE * TILE);
  const zero = secretZero(gpu, wide);
  for (let block = reflectors.length - 1; block >= 0; block--) {
    const v = reflectors[block];
    const j0 = block * TILE;
    // Reflectors of this block are zero before row j0 + 1.
    const lanes = { storage: v, offset: j0, step: 1, lane: ld };
    const r = gpu.recorder();
    const square = { storage: gram, ld: TILE, rows: [0, TILE], cols: [0, TILE] } as const;
    recordProduct(r, wide, lanes, lanes, ld - j0, square);
    const wide64 = { storage: y, ld: m, rows: [0, TILE], cols: [0, m] } as const;
    recordProduct(r, wide, lanes, { storage: z, offset: j0, step: 1, lane: ld }, ld - j0, wide64);
    r.dispatch(reflectorSolve[wide], {
      bind: { gram, scalars, y, ...zero },
      params: { count: Math.min(TILE, n - j0), j0, ld, m },
      grid: [Math.ceil(m / 64), 1, 1],
    });
    recordProduct(r, wide, { storage: y, step: m, lane: 1 }, { storage: v, step: ld, lane: 1 }, TILE, {
      storage: z,
      ld,
      rows: [0, m],
      cols: [j0, ld],
      subtract: true,
    });
    using plan = r.finish(`transform back from column ${j0}`);
    plan.run();
    await gpu.sync();
  }
}
