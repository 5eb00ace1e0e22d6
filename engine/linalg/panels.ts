/**
 * Symmetric matrices on the device: the lower triangle in row panels, each its own buffer within the
 * binding limit. A panel of rows [row, row + rows) is a dense block of row + rows columns, so the whole
 * takes little more than half of the square. Sizes are padded to whole 64×64 tiles.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer, Storage } from "../gpu/memory.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { type Load, panelLoad, type Real } from "../kernels/linalg.ts";
import { type Epilogue, type Family, rankUpdateFamily, rankUpdateKernel } from "../kernels/linalg_rank.ts";
import { zeroBuffer } from "./buffers.ts";

/** Edge of the tiles of every kernel in this folder. */
export const TILE = 64;

/** Rows [row, row + rows) of a triangle; element (i, j) is at (i − row)·ld + j. */
export interface Panel {
  readonly storage: GpuBuffer;
  readonly row: number;
  readonly rows: number;
  readonly ld: number;
}

/** The lower triangle of an n×n matrix, padded to `padded` rows. */
export interface Panels {
  readonly label: string;
  readonly n: number;
  readonly padded: number;
  readonly real: Real;
  readonly panels: readonly Panel[];
}

/** Row blocks of a symmetric matrix to read from: a dense tensor's shards or another matrix's panels. */
export interface RowBlock {
  readonly storage: Storage;
  /** Low words of a two-float matrix, same addresses. */
  readonly lo?: Storage;
  readonly row: number;
  readonly rows: number;
  readonly ld: number;
}

/** Bytes of a number. */
export function realBytes(real: Real): number {
  return real === "f64" ? 8 : 4;
}

/** n rounded up to whole tiles. */
export function paddedSize(n: number): number {
  return Math.ceil(n / TILE) * TILE;
}

/**
 * Allocates a triangle, content zero, in `pieces` panels or more. Eight store 9/16 of the square; more would
 * only add dispatches, and work that takes many dispatches a panel is better off with one.
 * @throws {GpuError} when one row of tiles is larger than `maxShardBytes` (default: the device's limit)
 */
export function createPanels(
  gpu: Gpu,
  label: string,
  n: number,
  real: Real,
  maxShardBytes?: number,
  pieces = 8,
): Panels {
  const limit = maxShardBytes ?? Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
  const padded = paddedSize(n);
  const wanted = Math.max(4 * TILE, paddedSize(padded / pieces));
  const panels: Panel[] = [];
  for (let row = 0; row < padded;) {
    let rows = Math.min(wanted, padded - row);
    while (rows > 0 && rows * (row + rows) * realBytes(real) > limit) rows -= TILE;
    if (rows === 0) {
      const bytes = TILE * (row + TILE) * realBytes(real);
      throw new GpuError(
        `Cannot store ${label} [${n}, ${n}]: ${TILE} rows of it have ${bytes} bytes, the limit is ${limit}`,
      );
    }
    const ld = row + rows;
    const storage = gpu.memory.alloc(rows * ld * realBytes(real), `${label}[${row}…]`, "linalg");
    panels.push({ storage, row, rows, ld });
    row += rows;
  }
  return { label, n, padded, real, panels };
}

/** Frees a triangle. */
export function freePanels(gpu: Gpu, { panels }: Panels): void {
  panels.forEach((p) => gpu.memory.free(p.storage));
}

/** The panel that holds a row. */
export function panelOf({ panels }: Panels, row: number): Panel {
  return panels.find((p) => row < p.row + p.rows)!;
}

/** The panels as a source to read from, with the low words of another triangle of the same layout. */
export function rowBlocks(hi: Panels, lo?: Panels): RowBlock[] {
  return hi.panels.map((p, i) => ({ ...p, lo: lo?.panels[i].storage }));
}

/** What {@link recordLoad} does to a matrix on the way. */
export interface LoadOptions {
  /** f32 [padded]: element (i, j) is multiplied by scale_i scale_j; powers of two. */
  scale: GpuBuffer;
  /** [padded] in the target's precision: replaces the diagonal. */
  diagonal: GpuBuffer;
  /** Read the low words as if they were the matrix. */
  lowWords?: boolean;
}

/** Records target = scale ∘ source ∘ scale with another diagonal; the padding becomes the identity. */
export function recordLoad(
  r: Recorder,
  target: Panels,
  source: { real: Real; blocks: readonly RowBlock[]; n: number },
  { scale, diagonal, lowWords = false }: LoadOptions,
): void {
  const kernel = panelLoad[`${source.real}→${target.real}` as Load];
  const nothing = zeroBuffer(r.gpu);
  for (const panel of target.panels) {
    for (const block of source.blocks) {
      const rowBegin = Math.max(panel.row, block.row);
      // The last block also stands for the padding, where nothing is read.
      const blockEnd = block.row + block.rows >= source.n ? target.padded : block.row + block.rows;
      const rowEnd = Math.min(panel.row + panel.rows, blockEnd);
      if (rowBegin >= rowEnd) continue;
      const withLow = !lowWords && target.real === "f64" && block.lo !== undefined;
      r.dispatch(kernel, {
        variant: { LO: withLow },
        bind: {
          src: lowWords ? block.lo! : block.storage,
          lo: withLow ? block.lo! : nothing,
          scale,
          diagonal,
          panel: panel.storage,
        },
        params: {
          n: source.n,
          rowBegin,
          rowEnd,
          srcRow: block.row,
          srcLd: block.ld,
          panelRow: panel.row,
          panelLd: panel.ld,
        },
        grid: [panel.ld / TILE, rowEnd - rowBegin, 1],
      });
    }
  }
}

/** The factor A [K, n] of a rank update: K rows from element `offset` on, `ld` apart, columns to `last`. */
export interface RankFactor {
  storage: Storage;
  offset: number;
  K: number;
  ld: number;
  last: number;
}

/** Which part of the triangle {@link recordRankUpdate} changes, and how. */
export interface RankTarget {
  epilogue: Epilogue;
  /** Low words, for the two-float epilogue. */
  lo?: Panels;
  /** First row and column; a multiple of 64 unless `colEnd` is given. Default 0. */
  from?: number;
  /** Only columns up to here, as a rectangle; default the whole trapezoid below the diagonal. */
  colEnd?: number;
  /** Default: the fastest on the device. */
  family?: Family;
}

/** Records C -= AᵀA, C += AᵀA or (C, lo) += AᵀA, on rows and columns ≥ `from` of the lower triangle. */
export function recordRankUpdate(r: Recorder, target: Panels, a: RankFactor, options: RankTarget): void {
  const { epilogue, lo, from = 0, colEnd } = options;
  const { real } = target;
  const kernel = rankUpdateKernel(options.family ?? rankUpdateFamily(r.gpu, real), epilogue, real);
  target.panels.forEach((panel, index) => {
    const rowEnd = panel.row + panel.rows;
    if (rowEnd <= from) return;
    const rowBegin = Math.max(panel.row, from);
    const cols = Math.min(colEnd ?? panel.ld, panel.ld);
    const tiles = Math.ceil((rowEnd - rowBegin) / TILE);
    const first = (rowBegin - from) / TILE;
    const params = {
      K: a.K,
      ld: a.ld,
      aOffset: a.offset,
      last: a.last,
      rowBegin,
      rowEnd,
      colBegin: from,
      colEnd: cols,
      panelRow: panel.row,
      panelLd: panel.ld,
      tri: colEnd === undefined ? 1 : 0,
      first: colEnd === undefined ? first : 0,
    };
    const low: Record<string, Storage> = epilogue === "twoFloat"
      ? { lo: lo!.panels[index].storage, zero: zeroBuffer(r.gpu) }
      : {};
    r.dispatch(kernel, {
      bind: { a: a.storage, c: panel.storage, ...low },
      params,
      grid: colEnd === undefined
        ? [tiles * first + tiles * (tiles + 1) / 2, 1, 1]
        : [tiles, Math.ceil((cols - from) / TILE), 1],
    });
  });
}
