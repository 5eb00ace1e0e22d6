/**
 * The R of a tall matrix A = Q R by Cholesky factors of Gram matrices, which is all tuned products: A's Gram
 * matrix gives L₁, that of Q₁ = A L₁⁻ᵀ gives L₂, and so on until Q is well conditioned; R = … L₂ᵀ L₁ᵀ. A
 * shift of the diagonal makes each factor exist although squaring A squares its condition (shifted CholeskyQR:
 * Fukaya, Kannan, Nakatsukasa, Yamamoto & Yanagisawa, SIAM J. Sci. Comput. 42, 2020). R is a preconditioner
 * here, so its shift and its roundings cost refinements, not accuracy.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer } from "../gpu/memory.ts";
import type { Plan } from "../gpu/plan.ts";
import { foldGrid, type Recorder } from "../gpu/recorder.ts";
import type { Real } from "../kernels/linalg.ts";
import { columnCopy } from "../kernels/linalg_dense.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { bufferFrom } from "./buffers.ts";
import { leastPivot } from "./factorize.ts";
import { readDiagonal, regularise, scaleColumns, type SpdMatrix } from "./matrix.ts";
import { factorScaled } from "./native.ts";
import {
  createPanels,
  freePanels,
  paddedSize,
  type Panels,
  realBytes,
  recordRankUpdate,
  rowBlocks,
} from "./panels.ts";
import { powerOfTwo } from "./symmetric.ts";
import { recordBackward, recordForward } from "./triangular.ts";

/** Most rows of one product, which are the right-hand sides of one triangular solve. */
const SLICE = 512;
/** Each pass divides the condition number by 1/√shift at most; three exhaust either precision. */
const PASSES = 3;
/** Above this shift of a unit diagonal a factor is worth nothing. */
const LARGEST_SHIFT = 1e-2;

/** R of A diag(scale) = Q R as a solver. */
export interface Triangle extends Disposable {
  /** Gram matrices that were factored. */
  readonly passes: number;
  /** Norms of the columns of A. */
  readonly norms: Float64Array;
  /** Lower bound of the condition number of A with columns of equal norm. */
  readonly conditionEstimate: number;
  /** R⁻¹ R⁻ᵀ Z for m columns, m as given to {@link triangleOf}. One wait. */
  solve(z: Float64Array): Promise<Float64Array>;
}

/** Names the first column that depends on those before it, as far as a precision can tell. */
export function dependentColumn(column: number, cols: number, limit: number): GpuError {
  return new GpuError(
    `Cannot solve least squares: column ${column} of ${cols} depends on those before it`,
    "Leave it out or give a lambda above 0; this route tells columns apart down to " +
      `${limit.toExponential(0)} of their length`,
  );
}

/**
 * The share of a column's length that roundings leave of a dependent column: 1 to 5 units were measured for
 * 66 to 300 columns that repeat others or are sums of some or all of those before them, in either precision.
 */
export function dependenceLimit(cols: number, real: Real): number {
  return (8 + Math.sqrt(cols)) * (real === "f64" ? 2 ** -53 : 2 ** -24);
}

/**
 * Factors the stacked rows of `blocks`, tensors [·, cols] of one precision. Solves for m columns, m = 1 or a
 * multiple of 4. Two waits a pass at least.
 * @throws {GpuError} when a column depends on those before it
 */
export async function triangleOf(
  gpu: Gpu,
  blocks: Tensor[],
  m: number,
  options: { real: Real; maxShardBytes?: number },
): Promise<Triangle> {
  const { real, maxShardBytes } = options;
  const n = blocks[0].shape[1];
  using undo = new DisposableStack();
  const factors: Panels[] = [];
  const limit = dependenceLimit(n, real);
  let scale: Float32Array = new Float32Array(n).fill(1);
  let norms = new Float64Array(n);
  let left = new Float64Array(n);
  for (let done = false; !done;) {
    const gram = gramMatrix(gpu, blocks, factors, scale, options);
    try {
      const stored = await readDiagonal(gpu, gram.matrix);
      if (factors.length === 0) {
        const zero = stored.findIndex((v) => !(v > 0));
        if (zero >= 0) throw dependentColumn(zero, n, limit);
        scale = regularise({ name: "AᵀA", matrix: gram.matrix, jitter: 0 }, stored).scale;
        norms = stored.map(Math.sqrt);
        left = norms.map((v, i) => 1 / (v * scale[i]));
      }
      const { l, diagonal, shift } = await factorShifted(gpu, gram.matrix, stored, {
        scale: factors.length === 0 ? scale : scale.map(() => 1),
        real,
        maxShardBytes,
      });
      factors.push(undo.adopt(l, (l) => freePanels(gpu, l)));
      left = left.map((v, i) => v * diagonal[i]);
      // With pivots this far above the shift and the roundings, R⁻ᵀAᵀA R⁻¹ is near the identity.
      done = diagonal.every((v) => v * v >= 1e4 * shift) || factors.length === PASSES;
    } finally {
      gram.dispose();
    }
  }
  const dependent = left.findIndex((v) => v < limit);
  if (dependent >= 0) throw dependentColumn(dependent, n, limit);
  const solver = recordSolve(gpu, factors, m);
  undo.use(solver);
  const owned = undo.move();
  return {
    passes: factors.length,
    norms,
    conditionEstimate: Math.max(...left) / Math.min(...left),
    async solve(z) {
      return scaleColumns(await solver.run(scaleColumns(z, scale)), scale);
    },
    [Symbol.dispose]: () => owned.dispose(),
  };
}

/** Cholesky of a Gram matrix with the smallest shift that works. @throws {GpuError} when none does */
async function factorShifted(
  gpu: Gpu,
  matrix: SpdMatrix,
  stored: Float64Array,
  { scale, real, maxShardBytes }: { scale: Float32Array; real: Real; maxShardBytes?: number },
) {
  const { n } = matrix;
  // The roundings of the Gram matrix: 512 products a sum in f32, where 1e-6 is measured to do (see EXTRA in
  // compensated.ts); in f64 twice what the factorisation takes for noise.
  for (let shift = real === "f64" ? Math.max(1e-14, 2 * leastPivot(n, real)) : 1e-6;; shift *= 10) {
    const diagonal = stored.map((v, i) => v + shift / scale[i] ** 2);
    const system = { name: "AᵀA", matrix, jitter: 0, maxShardBytes };
    const made = await factorScaled(gpu, system, { diagonal, scale, shift: 0 }, real);
    if (!("column" in made)) return { ...made, shift };
    if (shift >= LARGEST_SHIFT) throw dependentColumn(made.column, n, dependenceLimit(n, real));
  }
}

/** QᵀQ of Q = A diag(scale) L₁⁻ᵀ L₂⁻ᵀ …, or AᵀA itself before the first factor. */
function gramMatrix(
  gpu: Gpu,
  blocks: Tensor[],
  factors: Panels[],
  scale: Float32Array,
  { real, maxShardBytes }: { real: Real; maxShardBytes?: number },
): { matrix: SpdMatrix; dispose: () => void } {
  const n = scale.length;
  const padded = paddedSize(n);
  using scratch = new DisposableStack();
  const keep = (buffer: GpuBuffer) => scratch.adopt(buffer, (b) => gpu.memory.free(b));
  const hi = createPanels(gpu, "AᵀA", n, real, maxShardBytes);
  const lo = real === "f32" ? createPanels(gpu, "AᵀA low", n, real, maxShardBytes) : undefined;
  const add = { epilogue: real === "f64" ? "plus" as const : "twoFloat" as const, lo };
  const width = Math.min(SLICE, 4 * Math.ceil(Math.max(...blocks.map((b) => b.shape[0])) / 4));
  const slice = factors.length > 0
    ? {
      width,
      scale: keep(bufferFrom(gpu, "scale", scale)),
      ones: keep(bufferFrom(gpu, "ones", new Float32Array(n).fill(1))),
      columns: keep(gpu.memory.alloc(padded * width * realBytes(real), "Qᵀ", "linalg")),
      rows: keep(gpu.memory.alloc(n * width * realBytes(real), "Q", "linalg")),
    }
    : undefined;
  const r = gpu.recorder();
  for (const { storage, rows } of blocks.flatMap((b) => b.shards)) {
    for (let start = 0; start < rows; start += SLICE) {
      const K = Math.min(SLICE, rows - start);
      if (slice) {
        recordOrthogonal(r, { storage, offset: start * n, K, n, padded, real }, factors, slice);
        recordRankUpdate(r, hi, { storage: slice.rows, offset: 0, K, ld: n, last: n - 1 }, add);
      } else recordRankUpdate(r, hi, { storage, offset: start * n, K, ld: n, last: n - 1 }, add);
    }
  }
  using plan = r.finish("Gram matrix");
  plan.run();
  // The scratch of a plan that still runs may be freed: the queue keeps it.
  const matrix = { n, real, weight: 1, blocks: rowBlocks(hi, lo) };
  return { matrix, dispose: () => [hi, lo].forEach((p) => p && freePanels(gpu, p)) };
}

/** What a slice of rows passes through: `width` of them at most, a multiple of 4. */
interface Scratch {
  width: number;
  scale: GpuBuffer;
  ones: GpuBuffer;
  columns: GpuBuffer;
  rows: GpuBuffer;
}

/** Records rows of A to rows of Q: transposed, solved forward with every factor, transposed back. */
function recordOrthogonal(
  r: Recorder,
  a: {
    storage: Tensor["shards"][number]["storage"];
    offset: number;
    K: number;
    n: number;
    padded: number;
    real: Real;
  },
  factors: Panels[],
  { width, scale, ones, columns, rows }: Scratch,
): void {
  const { storage, offset, K, n, padded, real } = a;
  const copy = columnCopy[real === "f64" ? "f64→f64" : "f32→f32"];
  r.dispatch(copy, {
    bind: { src: storage, scale, y: columns },
    params: {
      rows: K,
      cols: n,
      width: padded,
      srcOffset: offset,
      srcRow: n,
      srcCol: 1,
      yOffset: 0,
      yRow: 1,
      yCol: width,
    },
    grid: foldGrid(Math.ceil(K * padded / 64)),
  });
  factors.forEach((l) => recordForward(r, l, columns, width));
  r.dispatch(copy, {
    bind: { src: columns, scale: ones, y: rows },
    params: {
      rows: K,
      cols: n,
      width: n,
      srcOffset: 0,
      srcRow: 1,
      srcCol: width,
      yOffset: 0,
      yRow: n,
      yCol: 1,
    },
    grid: foldGrid(Math.ceil(K * n / 64)),
  });
}

/** One plan: forward through the factors, backward through them in turn. */
function recordSolve(gpu: Gpu, factors: Panels[], m: number) {
  const { n, padded, real } = factors[0];
  const b = gpu.memory.alloc(padded * m * realBytes(real), "right-hand sides", "linalg");
  const r = gpu.recorder();
  factors.forEach((l) => recordForward(r, l, b, m));
  factors.toReversed().forEach((l) => recordBackward(r, l, b, m));
  const plan: Plan = r.finish("seminormal equations");
  return {
    async run(z: Float64Array): Promise<Float64Array> {
      // Powers of two keep f32 in range, whatever the size of a correction.
      const sizes = Array.from({ length: m }, (_, c) => powerOfTwo(z.subarray(c * n, (c + 1) * n)));
      const rows = real === "f64" ? new Float64Array(padded * m) : new Float32Array(padded * m);
      for (let c = 0; c < m; c++) {
        for (let i = 0; i < n; i++) rows[i * m + c] = z[c * n + i] / sizes[c];
      }
      gpu.upload(b, new Uint8Array(rows.buffer));
      plan.run();
      const [bytes] = await gpu.read({ buffer: b, bytes: rows.byteLength });
      const solved = real === "f64" ? new Float64Array(bytes) : new Float32Array(bytes);
      return Float64Array.from(z, (_, at) => {
        const c = Math.floor(at / n);
        return solved[at % n * m + c] * sizes[c];
      });
    },
    [Symbol.dispose]() {
      plan.dispose();
      gpu.memory.free(b);
    },
  };
}
