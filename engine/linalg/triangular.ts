/**
 * Triangular solves with a factor in row panels and many right-hand sides: L Lᵀ X = B, blocks of 64 rows.
 * A solver keeps one plan a width, so a repeated solve records nothing.
 */
import type { Gpu } from "../gpu/device.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import type { Plan } from "../gpu/plan.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { solveBlock, solveUpdate } from "../kernels/linalg.ts";
import { type Panel, panelOf, type Panels, realBytes, TILE } from "./panels.ts";

/** Right-hand sides of one plan; more go in several runs. */
const WIDTHS = [1, 4, 16, 32, 64, 128];

/** Records L Y = B in place: `b` [padded, m] in the factor's precision, m = 1 or a multiple of 4. */
export function recordForward(r: Recorder, l: Panels, b: GpuBuffer, m: number): void {
  for (let k0 = 0; k0 < l.padded; k0 += TILE) {
    const home = panelOf(l, k0);
    recordBlock(r, l, home, b, k0, m, false);
    for (const panel of l.panels) {
      const rowBegin = Math.max(panel.row, k0 + TILE);
      const rowEnd = panel.row + panel.rows;
      const address = { origin: k0, baseRow: panel.row, rowStride: panel.ld, stepStride: 1 };
      recordUpdate(r, l, panel, b, { k0, m, rowBegin, rowEnd, ...address });
    }
  }
}

/** Records Lᵀ X = Y, in place; see {@link recordForward}. */
export function recordBackward(r: Recorder, l: Panels, b: GpuBuffer, m: number): void {
  for (let k0 = l.padded - TILE; k0 >= 0; k0 -= TILE) {
    const home = panelOf(l, k0);
    recordBlock(r, l, home, b, k0, m, true);
    const address = { origin: (k0 - home.row) * home.ld, baseRow: 0, rowStride: 1, stepStride: home.ld };
    recordUpdate(r, l, home, b, { k0, m, rowBegin: 0, rowEnd: k0, ...address });
  }
}

function recordBlock(
  r: Recorder,
  l: Panels,
  panel: Panel,
  b: GpuBuffer,
  k0: number,
  m: number,
  back: boolean,
) {
  r.dispatch(solveBlock[l.real], {
    variant: { BACK: back },
    bind: { panel: panel.storage, b },
    params: { k0, m, panelRow: panel.row, panelLd: panel.ld },
    grid: [Math.ceil(m / 64), 1, 1],
  });
}

function recordUpdate(
  r: Recorder,
  l: Panels,
  panel: Panel,
  b: GpuBuffer,
  params: Record<string, number>,
): void {
  const rows = params.rowEnd - params.rowBegin;
  if (rows <= 0) return;
  const COLS = params.m === 1 ? 1 : 4;
  r.dispatch(solveUpdate[l.real], {
    variant: { COLS },
    bind: { panel: panel.storage, b },
    params,
    grid: [Math.ceil(rows / 4 * params.m / COLS / 64), 1, 1],
  });
}

/** Solves with one factor; owns its right-hand side buffers and plans. */
export class TriangularSolver {
  #gpu: Gpu;
  #l: Panels;
  #plans = new Map<number, { plan: Plan; b: GpuBuffer }>();

  constructor(gpu: Gpu, l: Panels) {
    this.#gpu = gpu;
    this.#l = l;
  }

  /** X of L Lᵀ X = B for m columns of length n, one after another. One wait a 128 columns. */
  async solve(b: Float64Array, m: number): Promise<Float64Array> {
    const { n, padded, real } = this.#l;
    const x = new Float64Array(n * m);
    for (let first = 0; first < m; first += WIDTHS[WIDTHS.length - 1]) {
      const count = Math.min(WIDTHS[WIDTHS.length - 1], m - first);
      const width = WIDTHS.find((w) => w >= count)!;
      const { plan, b: buffer } = this.#prepare(width);
      const rows = real === "f64" ? new Float64Array(padded * width) : new Float32Array(padded * width);
      for (let c = 0; c < count; c++) {
        for (let i = 0; i < n; i++) rows[i * width + c] = b[(first + c) * n + i];
      }
      this.#gpu.upload(buffer, new Uint8Array(rows.buffer));
      plan.run();
      const [bytes] = await this.#gpu.read({ buffer, bytes: rows.byteLength });
      const solved = real === "f64" ? new Float64Array(bytes) : new Float32Array(bytes);
      for (let c = 0; c < count; c++) {
        for (let i = 0; i < n; i++) x[(first + c) * n + i] = solved[i * width + c];
      }
    }
    return x;
  }

  #prepare(width: number): { plan: Plan; b: GpuBuffer } {
    let made = this.#plans.get(width);
    if (!made) {
      const { label, padded, real } = this.#l;
      const name = `${label} right-hand sides`;
      const b = this.#gpu.memory.alloc(padded * width * realBytes(real), name, "linalg");
      const r = this.#gpu.recorder();
      recordForward(r, this.#l, b, width);
      recordBackward(r, this.#l, b, width);
      this.#plans.set(width, made = { plan: r.finish(`solve ${label}`), b });
    }
    return made;
  }

  /** Frees the plans and buffers; the factor stays. */
  dispose(): void {
    for (const { plan, b } of this.#plans.values()) {
      plan.dispose();
      this.#gpu.memory.free(b);
    }
    this.#plans.clear();
  }
}
