/**
 * The projector onto the space that AlphaEdit may write in, P = N Nᵀ or I − Q Qᵀ (guide, section 8): P times
 * keys, which is what the Gram form needs, and P as a dense matrix where that is wanted. The basis stays on
 * the device, in wide numbers.
 */
import type { Gpu } from "../gpu/device.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import type { Wide } from "../kernels/linalg_wide.ts";
import { multiplyRows } from "./host_product.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkColumns, type SpdMatrix } from "./matrix.ts";
import { type NullSpace, nullSpace, type NullSpaceOptions } from "./null_space.ts";
import type { Packed } from "./packed.ts";
import { paddedSize } from "./panels.ts";
import { allocWide, decodeWide, encodeWide, recordProduct, WIDE_BYTES, wideOf } from "./wide.ts";

/** Rows of a basis on the device. */
interface Chunk {
  storage: GpuBuffer;
  rows: number;
}

/** P on the host, with what a report says about it. */
export interface ProjectorValues {
  n: number;
  threshold: number;
  /** Dimension of the space that P keeps. */
  rank: number;
  /** Eigenvalues of C around the threshold, ascending. */
  near: number[];
  /** Rows of the lower triangle of the symmetric P, n·(n + 1)/2. */
  lower: Float32Array;
}

/** Makes P from C in one go, on the host. @throws {GpuError} as {@link nullSpace} does */
export async function makeProjector(
  gpu: Gpu,
  C: Tensor | SpdMatrix | Packed,
  options: NullSpaceOptions,
): Promise<ProjectorValues> {
  const space = await nullSpace(gpu, C, options);
  using projector = new Projector(gpu, space, { maxShardBytes: options.maxShardBytes });
  const { n, threshold, rank, near } = space;
  return { n, threshold, rank, near: [...near], lower: await projector.lower() };
}

/** P of one {@link NullSpace}. Dispose it to free the basis on the device. */
export class Projector implements Disposable {
  readonly space: NullSpace;
  #gpu: Gpu;
  #wide?: Wide;
  #ld: number;
  #limit: number;
  #chunks: Chunk[] = [];

  constructor(gpu: Gpu, space: NullSpace, options: { maxShardBytes?: number } = {}) {
    const { n, basis, name } = space;
    this.#gpu = gpu;
    this.space = space;
    this.#ld = paddedSize(n);
    this.#limit = options.maxShardBytes ??
      Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
    // Chosen by this device: a stored space may come from another.
    if (n <= 64 || !(gpu.numerics.f64 || gpu.numerics.compensated)) return;
    const wide = this.#wide = wideOf(gpu);
    const count = basis.length / n;
    const most = Math.max(1, Math.floor(this.#limit / (this.#ld * WIDE_BYTES)));
    for (let first = 0; first < count; first += most) {
      const rows = Math.min(most, count - first);
      const values = new Float64Array(rows * this.#ld);
      for (let r = 0; r < rows; r++) {
        values.set(basis.subarray((first + r) * n, (first + r + 1) * n), r * this.#ld);
      }
      const storage = allocWide(gpu, `${name} basis`, values.length);
      gpu.upload(storage, encodeWide(values, wide));
      this.#chunks.push({ storage, rows });
    }
  }

  /**
   * P K for m columns of length n, one after another. One wait.
   * @throws {GpuError} when sizes do not fit or a number is not finite
   */
  async apply(columns: Float64Array | Float32Array, m = 1): Promise<Float64Array> {
    const { name, n, spans, basis } = this.space;
    const k = checkColumns(name, n, columns, m);
    const wide = this.#wide;
    const part = wide ? await this.#onDevice(k, m, wide) : projectHost(basis, n, k, m);
    return spans === "kept" ? part : k.map((v, i) => v - part[i]);
  }

  /** Rows of P's lower triangle one after another in f32: n(n + 1)/2 numbers. */
  async lower(): Promise<Float32Array> {
    const { n, spans } = this.space;
    const lower = new Float32Array(n * (n + 1) / 2);
    const rows = Math.max(1, Math.floor(this.#limit / (this.#ld * WIDE_BYTES)));
    for (let first = 0, at = 0; first < n; first += rows) {
      const end = Math.min(n, first + rows);
      const part = await this.#outer(first, end);
      for (let i = first; i < end; i++) {
        for (let j = 0; j <= i; j++, at++) {
          const v = part[(i - first) * end + j];
          lower[at] = spans === "kept" ? v : (i === j ? 1 : 0) - v;
        }
      }
    }
    return lower;
  }

  /** P row-major [n, n] in f32. */
  async dense(): Promise<Float32Array> {
    const { n } = this.space;
    const lower = await this.lower();
    const P = new Float32Array(n * n);
    for (let i = 0, at = 0; i < n; i++) {
      for (let j = 0; j <= i; j++, at++) P[i * n + j] = P[j * n + i] = lower[at];
    }
    return P;
  }

  /** Σ of the basis's outer products, rows [first, end) × columns [0, end). */
  async #outer(first: number, end: number): Promise<Float64Array> {
    const { n, basis, name } = this.space;
    const wide = this.#wide;
    const part = new Float64Array((end - first) * end);
    const count = basis.length / n;
    if (count === 0) return part;
    if (!wide) {
      const rows = Array.from({ length: count }, (_, r) => basis.subarray(r * n, r * n + end));
      const mine = Float64Array.from(
        { length: (end - first) * count },
        (_, at) => basis[at % count * n + first + Math.floor(at / count)],
      );
      const starts = Array.from({ length: end - first }, (_, i) => i * end);
      multiplyRows(mine, count, rows.map((_, r) => r), rows, end, part, starts);
      return part;
    }
    const storage = allocWide(this.#gpu, `${name} projector`, part.length);
    try {
      const r = this.#gpu.recorder();
      for (const chunk of this.#chunks) {
        const lanes = { storage: chunk.storage, step: this.#ld, lane: 1 };
        recordProduct(r, wide, lanes, lanes, chunk.rows, {
          storage,
          ld: end,
          rows: [first, end],
          cols: [0, end],
          panelRow: first,
          subtract: true,
        });
      }
      using plan = r.finish(`project ${name}`);
      plan.run();
      const [raw] = await this.#gpu.read({ buffer: storage, bytes: part.length * WIDE_BYTES });
      return decodeWide(raw, wide).map((v) => -v);
    } finally {
      this.#gpu.memory.free(storage);
    }
  }

  async #onDevice(k: Float64Array, m: number, wide: Wide): Promise<Float64Array> {
    const { n, name } = this.space;
    if (this.#chunks.length === 0) return new Float64Array(k.length);
    const gpu = this.#gpu;
    using scratch = new DisposableStack();
    const alloc = (label: string, count: number) =>
      scratch.adopt(allocWide(gpu, `${name} ${label}`, count), (b) => gpu.memory.free(b));
    const keys = alloc("keys", m * n);
    const out = alloc("projected keys", m * n);
    gpu.upload(keys, encodeWide(k, wide));
    const r = gpu.recorder();
    for (const { storage, rows } of this.#chunks) {
      const along = alloc("coordinates", rows * m);
      recordProduct(
        r,
        wide,
        { storage, step: 1, lane: this.#ld },
        { storage: keys, step: 1, lane: n },
        n,
        { storage: along, ld: m, rows: [0, rows], cols: [0, m] },
      );
      recordProduct(
        r,
        wide,
        { storage: along, step: m, lane: 1 },
        { storage, step: this.#ld, lane: 1 },
        rows,
        { storage: out, ld: n, rows: [0, m], cols: [0, n], subtract: true },
      );
    }
    using plan = r.finish(`project keys by ${name}`);
    plan.run();
    const [raw] = await gpu.read({ buffer: out, bytes: m * n * WIDE_BYTES });
    return decodeWide(raw, wide).map((v) => -v);
  }

  /** Frees the basis on the device. */
  dispose(): void {
    this.#chunks.forEach(({ storage }) => this.#gpu.memory.free(storage));
    this.#chunks = [];
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function projectHost(basis: Float64Array, n: number, k: Float64Array, m: number): Float64Array {
  const out = new Float64Array(k.length);
  for (let r = 0; r < basis.length; r += n) {
    for (let c = 0; c < m * n; c += n) {
      let s = 0;
      for (let i = 0; i < n; i++) s += basis[r + i] * k[c + i];
      for (let i = 0; i < n; i++) out[c + i] += s * basis[r + i];
    }
  }
  return out;
}
