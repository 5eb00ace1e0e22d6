/**
 * A rectangular matrix as the least-squares solver works on it: a copy on the device whose columns are
 * scaled by powers of two to a largest element in (1/2, 1], in f64 or as two-float words; and the products
 * that a residual takes. Scaling is exact and costs no accuracy, and squares of columns stay in range.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import { foldGrid, type Recorder } from "../gpu/recorder.ts";
import type { Load, Real } from "../kernels/linalg.ts";
import {
  columnCopy,
  columnPeaks,
  subtractProduct,
  subtractProductTwoFloat,
} from "../kernels/linalg_dense.ts";
import { createTensor, describe, freeTensor, matrixOf, type Tensor } from "../tensor/tensor.ts";
import { fromHost, readTensors } from "../tensor/transfer.ts";
import { bufferFrom, zeroBuffer } from "./buffers.ts";

/** A matrix to solve with: a tensor of f32, or a host array, row-major [rows, cols]. */
export type DenseSource = Tensor | Float32Array | Float64Array;

/** The scaled copy. */
export interface Dense extends Disposable {
  readonly rows: number;
  readonly cols: number;
  /** "f32" means two-float: `hi`, and `lo` where the source has more than f32 holds. */
  readonly real: Real;
  readonly hi: Tensor;
  readonly lo?: Tensor;
  /** Powers of two: the copy is A · diag(scale). */
  readonly scale: Float32Array;
}

/** The largest exponent of a scale: it and its inverse are normal f32 numbers. */
const EXPONENT = 126;

/** Copies and scales. One wait. @throws {GpuError} when a number is not finite, in f32 */
export async function equilibrate(
  gpu: Gpu,
  source: DenseSource,
  rows: number,
  cols: number,
  { real, maxShardBytes }: { real: Real; maxShardBytes?: number },
): Promise<Dense> {
  using scratch = new DisposableStack();
  const options = { owner: "linalg", maxShardBytes };
  const upload = (values: Float32Array | Float64Array, dtype: Real) => {
    const t = fromHost(gpu, "A", [rows, cols], values, { ...options, dtype });
    return scratch.adopt(t, (t) => freeTensor(gpu, t));
  };
  let words: Tensor[];
  if ("shape" in source) words = [source];
  else if (source instanceof Float32Array) words = [upload(source, "f32")];
  else if (real === "f64") words = [upload(source, "f64")];
  else {
    const high = Float32Array.from(source);
    words = [upload(high, "f32"), upload(Float32Array.from(source, (v, i) => v - high[i]), "f32")];
  }
  const scale = await columnScale(gpu, words[0]);
  const s = bufferFrom(gpu, "scale of A", scale);
  scratch.defer(() => gpu.memory.free(s));
  const r = gpu.recorder();
  const made = words.map((from) => {
    const to = createTensor(gpu, "scaled A", [rows, cols], { ...options, dtype: real });
    recordScaledCopy(r, from, to, s);
    return to;
  });
  using plan = r.finish("scale columns");
  plan.run();
  const [hi, lo] = made;
  return { rows, cols, real, hi, lo, scale, [Symbol.dispose]: () => made.forEach((t) => freeTensor(gpu, t)) };
}

/** 2^−⌈log₂ peak⌉ a column; 1 for a column of zeros. */
async function columnScale(gpu: Gpu, a: Tensor): Promise<Float32Array> {
  const { cols } = matrixOf(a);
  const y = gpu.memory.alloc(4 * cols, "column peaks", "linalg");
  const r = gpu.recorder();
  for (const { storage, rows } of a.shards) {
    const params = { rows, cols };
    r.dispatch(columnPeaks[a.dtype as Real], {
      bind: { a: storage, y },
      params,
      grid: [Math.ceil(cols / 64), 1, 1],
    });
  }
  using plan = r.finish("column peaks");
  plan.run();
  const [raw] = await gpu.read({ buffer: y, bytes: 4 * cols });
  gpu.memory.free(y);
  const peaks = new Float32Array(raw);
  const bad = peaks.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) {
    throw new GpuError(
      `Cannot solve least squares: column ${bad} of ${cols} has a number that is not finite`,
    );
  }
  return peaks.map((v) => {
    const exponent = v > 0 ? -Math.ceil(Math.log2(v)) : 0;
    return 2 ** Math.max(-EXPONENT, Math.min(EXPONENT, exponent));
  });
}

/** Records to = from · diag(scale) where both may be in shards of their own. */
function recordScaledCopy(r: Recorder, from: Tensor, to: Tensor, scale: GpuBuffer): void {
  const { cols } = matrixOf(to);
  for (const target of to.shards) {
    for (const block of from.shards) {
      const begin = Math.max(target.row, block.row);
      const rows = Math.min(target.row + target.rows, block.row + block.rows) - begin;
      if (rows <= 0) continue;
      r.dispatch(columnCopy[`${from.dtype}→${to.dtype}` as Load], {
        bind: { src: block.storage, scale, y: target.storage },
        params: {
          rows,
          cols,
          width: cols,
          srcOffset: (begin - block.row) * cols,
          srcRow: cols,
          srcCol: 1,
          yOffset: (begin - target.row) * cols,
          yRow: cols,
          yCol: 1,
        },
        grid: foldGrid(Math.ceil(rows * cols / 64)),
      });
    }
  }
}

/** Residuals of m columns at a time; columns lie one after another. */
export interface Residuals extends Disposable {
  /** r = b − A x and s = Aᵀ r − start, both from the same wait. */
  at(
    x: Float64Array,
    b: Float64Array,
    start: Float64Array,
  ): Promise<{ r: Float64Array; s: Float64Array }>;
}

/**
 * The products of a residual, recorded once. In f64, or with two-float numbers; on a device without f64
 * whose compiler breaks error-free transformations they are the host's.
 */
export function residualsOf(gpu: Gpu, a: Dense, m: number): Residuals {
  const { rows, cols, real } = a;
  if (real === "f32" && !gpu.numerics.compensated) return hostResiduals(gpu, a, m);
  using undo = new DisposableStack();
  const alloc = (n: number, label: string) =>
    undo.adopt(gpu.memory.alloc(8 * n * m, label, "linalg"), (b) => gpu.memory.free(b));
  const [x, r, s] = [alloc(cols, "x of A x"), alloc(rows, "b − A x"), alloc(cols, "Aᵀ(b − A x)")];
  const recorder = gpu.recorder();
  for (const transposed of [false, true]) {
    a.hi.shards.forEach((shard, i) => {
      const [count, K] = transposed ? [cols, shard.rows] : [shard.rows, cols];
      const [rowStride, stepStride] = transposed ? [1, cols] : [cols, 1];
      const [xFirst, yFirst] = transposed ? [shard.row, 0] : [0, shard.row];
      const zero = zeroBuffer(gpu);
      const vectors = transposed ? { x: r, y: s } : { x, y: r };
      const bind = { a: shard.storage, ...vectors };
      recorder.dispatch(real === "f64" ? subtractProduct : subtractProductTwoFloat, {
        variant: real === "f64" ? {} : { LO: a.lo !== undefined },
        bind: real === "f64" ? bind : { ...bind, lo: a.lo?.shards[i].storage ?? zero, zero },
        params: { m, count, K, rowStride, stepStride, xFirst, yFirst },
        grid: foldGrid(Math.ceil(count * m / 64)),
      });
    });
  }
  const plan = undo.use(recorder.finish("least-squares residual"));
  const owned = undo.move();
  return {
    async at(xs, bs, start) {
      gpu.upload(x, encode(xs, cols, m, real));
      gpu.upload(r, encode(bs, rows, m, real));
      gpu.upload(s, encode(start, cols, m, real));
      plan.run();
      const [rBytes, sBytes] = await gpu.read({ buffer: r, bytes: 8 * rows * m }, {
        buffer: s,
        bytes: 8 * cols * m,
      });
      return { r: decode(rBytes, rows, m, real), s: decode(sBytes, cols, m, real).map((v) => -v) };
    },
    [Symbol.dispose]: () => owned.dispose(),
  };
}

/** m columns of length n as an [n, m] array of f64 numbers or of (hi, lo) pairs. */
function encode(columns: Float64Array, n: number, m: number, real: Real): Uint8Array {
  const wide = new Float64Array(real === "f64" ? n * m : 0);
  const pairs = new Float32Array(real === "f64" ? 0 : 2 * n * m);
  for (let c = 0; c < m; c++) {
    for (let i = 0; i < n; i++) {
      const v = columns[c * n + i];
      const at = i * m + c;
      if (real === "f64") wide[at] = v;
      else {
        pairs[2 * at] = v;
        pairs[2 * at + 1] = v - pairs[2 * at];
      }
    }
  }
  return new Uint8Array(real === "f64" ? wide.buffer : pairs.buffer);
}

/** The inverse of {@link encode}. */
function decode(bytes: ArrayBuffer, n: number, m: number, real: Real): Float64Array {
  const wide = real === "f64" ? new Float64Array(bytes) : undefined;
  const pairs = new Float32Array(bytes);
  const columns = new Float64Array(n * m);
  for (let c = 0; c < m; c++) {
    for (let i = 0; i < n; i++) {
      const at = i * m + c;
      columns[c * n + i] = wide ? wide[at] : pairs[2 * at] + pairs[2 * at + 1];
    }
  }
  return columns;
}

/** {@link residualsOf} in host f64, from a copy that is read once. */
function hostResiduals(gpu: Gpu, { rows, cols, hi, lo }: Dense, m: number): Residuals {
  let copy: Promise<Float64Array> | undefined;
  const read = async () => {
    const [high, low] = await readTensors(gpu, ...(lo ? [hi, lo] : [hi]));
    return Float64Array.from(high as Float32Array, (v, i) => v + (low ? low[i] : 0));
  };
  return {
    async at(x, b, start) {
      const a = await (copy ??= read());
      const r = b.slice();
      const s = start.map((v) => -v);
      for (let c = 0; c < m; c++) {
        for (let i = 0; i < rows; i++) {
          let sum = b[c * rows + i];
          for (let j = 0; j < cols; j++) sum -= a[i * cols + j] * x[c * cols + j];
          r[c * rows + i] = sum;
          for (let j = 0; j < cols; j++) s[c * cols + j] += a[i * cols + j] * sum;
        }
      }
      return { r, s };
    },
    [Symbol.dispose]: () => {},
  };
}

/** Refuses tensors that are no f32 matrix of the given size. */
export function checkTensor(a: Tensor, rows: number, cols: number): void {
  const shape = matrixOf(a);
  if (a.dtype !== "f32" || shape.rows !== rows || shape.cols !== cols) {
    throw new GpuError(
      `Cannot solve least squares with ${
        describe(a)
      } ${a.dtype}: an f32 matrix [${rows}, ${cols}] was expected`,
    );
  }
  if (a.shards.some((s) => s.storage.kind === "virtual")) {
    throw new GpuError(
      `Cannot solve least squares with ${
        describe(a)
      }: it is a temporary of a plan, which has no memory of its own`,
    );
  }
}
