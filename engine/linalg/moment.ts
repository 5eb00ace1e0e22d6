/**
 * The uncentred second moment of keys, C = E[k kᵀ] (locate-and-edit guide, section 2): the statistic behind
 * every closed-form edit. Slices of tokens are multiplied in f32 and added to a two-float sum, because a
 * plain f32 sum over many slices loses the small eigenvalues that C⁻¹ amplifies. Lower triangle only, in
 * strips of rows: a strip is one matrix product, so the triangle gets the speed of the model's own products.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { panelExpand } from "../kernels/linalg.ts";
import { addTwoFloat, addTwoFloatGrid } from "../kernels/linalg_moment.ts";
import { matmulRaw } from "../ops/matmul.ts";
import { createTensor, describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { SpdMatrix } from "./matrix.ts";
import { zeroBuffer } from "./buffers.ts";
import { readPacked, writePacked } from "./pack.ts";
import { createPanels, freePanels, type Panels, type RowBlock, rowBlocks } from "./panels.ts";

/** Tokens of one f32 product; the guide allows 4096, fewer round less and cost nothing measurable. */
const SLICE = 512;
/** Rows of a strip: what lies above the diagonal is computed in vain, the taller the strip the more. */
const STRIP = 128;

/** Options of {@link SecondMoment}. */
export interface MomentOptions {
  /** Largest buffer in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
}

/** A moment on the host: the sum S of k kᵀ (not its mean) over `count` tokens, lower half packed by rows. */
export interface MomentValues {
  count: number;
  lower: Float64Array;
}

/** What {@link SecondMoment.load} takes: f64, of which the sum keeps 48 bits, or f32. */
export type MomentSource = Omit<MomentValues, "lower"> & { lower: Float64Array | Float32Array };

/**
 * Accumulates S += KᵀK on the device.
 *
 * @example
 * ```ts ignore
 * using moment = new SecondMoment(gpu, "layer 5 keys", 3072);
 * const r = gpu.recorder();
 * moment.add(r, keys);
 * using plan = r.finish();
 * plan.run();
 * using factor = await factorSpd(gpu, moment, { name: "C of layer 5" });
 * ```
 */
export class SecondMoment implements SpdMatrix, Disposable {
  readonly label: string;
  readonly n: number;
  readonly real = "f32";
  /** Tokens summed so far. */
  count = 0;
  #gpu: Gpu;
  #hi: Panels;
  #lo: Panels;

  constructor(gpu: Gpu, label: string, n: number, options: MomentOptions = {}) {
    this.label = label;
    this.n = n;
    this.#gpu = gpu;
    this.#hi = createPanels(gpu, label, n, "f32", options.maxShardBytes);
    this.#lo = createPanels(gpu, `${label} low`, n, "f32", options.maxShardBytes);
  }

  /** C = weight · S. @throws {GpuError} before the first token */
  get weight(): number {
    if (this.count === 0) throw new GpuError(`The second moment ${this.label} has no tokens yet`);
    return 1 / this.count;
  }

  /** S with its low words, for the solvers. */
  get blocks(): RowBlock[] {
    return rowBlocks(this.#hi, this.#lo);
  }

  /**
   * Records S += KᵀK over the first `rows` rows of keys [T, n] f32, and counts them once. A plan that is
   * replayed counts its further replays by {@link counted}; rows that hold no token must be zero then.
   */
  add(r: Recorder, keys: Tensor, rows = matrixOf(keys).rows): void {
    const shape = matrixOf(keys);
    if (shape.cols !== this.n || keys.dtype !== "f32" || rows > shape.rows) {
      throw new GpuError(
        `Cannot add ${rows} rows of ${describe(keys)} ${keys.dtype} to ${this.label} of width ${this.n}`,
      );
    }
    for (let start = 0; start < rows; start += SLICE) {
      this.#addSlice(r, keys, start, Math.min(SLICE, rows - start));
    }
    this.counted(rows);
  }

  #addSlice(r: Recorder, keys: Tensor, start: number, K: number): void {
    const { n } = this;
    const storage = storageOf(keys);
    const zero = zeroBuffer(this.#gpu);
    this.#hi.panels.forEach((panel, index) => {
      const { ld } = panel;
      for (let row = panel.row; row < Math.min(n, panel.row + panel.rows); row += STRIP) {
        const M = Math.min(STRIP, n - row, panel.row + panel.rows - row);
        const N = Math.min(n, row + M), width = 4 * Math.ceil(N / 4);
        const product = r.temp(4 * M * width, "product of keys");
        const at = { aOffset: start * n + row, bOffset: start * n };
        const shape = { M, N, K, lda: n, ldb: n, ldc: width, ...at };
        matmulRaw({ gpu: this.#gpu, r }, "tn", storage, { storage, dtype: "f32" }, product, shape);
        r.dispatch(addTwoFloat, {
          bind: { x: product, c: panel.storage, lo: this.#lo.panels[index].storage, zero },
          params: { rows: M, width, n: N, at: (row - panel.row) * ld, ld },
          grid: addTwoFloatGrid(M, width),
        });
      }
    });
  }

  /** Counts tokens whose keys a replay added. */
  counted(rows: number): void {
    this.count += rows;
  }

  /** Reads the sum. A wait a panel: at the end of a collection, not within. */
  async read(): Promise<MomentValues> {
    const [hi, lo] = [await readPacked(this.#gpu, this.#hi), await readPacked(this.#gpu, this.#lo)];
    const lower = new Float64Array(hi);
    for (let i = 0; i < lower.length; i++) lower[i] += lo[i];
    return { count: this.count, lower };
  }

  /** Overwrites the sum, for example by a stored statistic. @throws {GpuError} when the size differs */
  load({ count, lower }: MomentSource): void {
    const size = this.n * (this.n + 1) / 2;
    if (lower.length !== size) {
      throw new GpuError(
        `Cannot load ${lower.length} numbers into ${this.label}: its lower triangle has ${size}`,
      );
    }
    const hi = new Float32Array(lower), lo = new Float32Array(size);
    for (let i = 0; i < size; i++) lo[i] = lower[i] - hi[i];
    writePacked(this.#gpu, this.#hi, hi);
    writePacked(this.#gpu, this.#lo, lo);
    this.count = count;
  }

  /** Records the mean C as a dense tensor [n, n] f32, in row shards where it must be; the caller frees it. */
  toDense(r: Recorder, maxShardBytes?: number): Tensor {
    const { n, weight } = this;
    const dense = createTensor(this.#gpu, `${this.label} dense`, [n, n], {
      owner: "statistics",
      maxShardBytes,
    });
    for (const shard of dense.shards) {
      this.#hi.panels.forEach((panel, i) => {
        r.dispatch(panelExpand, {
          bind: { c: panel.storage, lo: this.#lo.panels[i].storage, y: shard.storage },
          params: {
            n,
            rowBegin: shard.row,
            rowEnd: shard.row + shard.rows,
            panelRow: panel.row,
            panelLd: panel.ld,
            weight,
          },
          grid: [panel.ld / 64, panel.rows, 1],
        });
      });
    }
    return dense;
  }

  /** Frees the sums. */
  dispose(): void {
    freePanels(this.#gpu, this.#hi);
    freePanels(this.#gpu, this.#lo);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
