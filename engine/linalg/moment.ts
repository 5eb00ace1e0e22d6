/**
 * The uncentred second moment of keys, C = E[k kᵀ] (locate-and-edit guide, section 2): the statistic behind
 * every closed-form edit. Slices of tokens are multiplied in f32 and added to a two-float sum, because a
 * plain f32 sum over many slices loses the small eigenvalues that C⁻¹ amplifies. Lower triangle only.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { panelExpand } from "../kernels/linalg.ts";
import type { Family } from "../kernels/linalg_rank.ts";
import { createTensor, describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { SpdMatrix } from "./matrix.ts";
import { readPacked, writePacked } from "./pack.ts";
import {
  createPanels,
  freePanels,
  type Panels,
  recordRankUpdate,
  type RowBlock,
  rowBlocks,
} from "./panels.ts";

/** Tokens of one f32 product; the guide allows 4096, fewer round less and cost nothing measurable. */
const SLICE = 512;

/** Options of {@link SecondMoment}. */
export interface MomentOptions {
  /** Largest buffer in bytes; default the device's binding limit. Tests make it small. */
  maxShardBytes?: number;
  /** How products are computed; default the fastest on the device. */
  family?: Family;
}

/** A moment on the host: the sum S of k kᵀ (not its mean) over `count` tokens, lower half packed by rows. */
export interface MomentValues {
  count: number;
  lower: Float64Array;
}

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
  #family?: Family;

  constructor(gpu: Gpu, label: string, n: number, options: MomentOptions = {}) {
    this.label = label;
    this.n = n;
    this.#gpu = gpu;
    this.#hi = createPanels(gpu, label, n, "f32", options.maxShardBytes);
    this.#lo = createPanels(gpu, `${label} low`, n, "f32", options.maxShardBytes);
    this.#family = options.family;
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
      const K = Math.min(SLICE, rows - start);
      const slice = { storage: storageOf(keys), offset: start * this.n, K, ld: this.n, last: this.n - 1 };
      recordRankUpdate(r, this.#hi, slice, { epilogue: "twoFloat", lo: this.#lo, family: this.#family });
    }
    this.counted(rows);
  }

  /** Counts tokens whose keys a replay added. */
  counted(rows: number): void {
    this.count += rows;
  }

  /** Reads the sum. A wait a panel: at the end of a collection, not within. */
  async read(): Promise<MomentValues> {
    const [hi, lo] = [await readPacked(this.#gpu, this.#hi), await readPacked(this.#gpu, this.#lo)];
    return { count: this.count, lower: Float64Array.from(hi, (v, i) => v + lo[i]) };
  }

  /** Overwrites the sum, for example by a stored statistic. @throws {GpuError} when the size differs */
  load({ count, lower }: MomentValues): void {
    const size = this.n * (this.n + 1) / 2;
    if (lower.length !== size) {
      throw new GpuError(
        `Cannot load ${lower.length} numbers into ${this.label}: its lower triangle has ${size}`,
      );
    }
    const hi = Float32Array.from(lower);
    writePacked(this.#gpu, this.#hi, hi);
    writePacked(this.#gpu, this.#lo, Float32Array.from(lower, (v, i) => v - hi[i]));
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
