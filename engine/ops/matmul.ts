/**
 * Matrix product of tensors or of row ranges of them, in three layouts. This is the raw operation without
 * a tape; `linear` builds the differentiable one from it.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { GpuBuffer, Storage } from "../gpu/memory.ts";
import { matmulTiled } from "../kernels/matmul.ts";
import { columnsOf, matmulFew, matmulFewNn, PIECE, stepOf, type WordBits } from "../kernels/matmul_few.ts";
import { columnSum } from "../kernels/rows.ts";
import { type Access, matmulSubgroup } from "../kernels/matmul_subgroup.ts";
import { describe, type Dtype, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, temp } from "./context.ts";

/** nt: C = A Bᵀ (B [N,K]); nn: C = A B (B [K,N]); tn: C = Aᵀ B (A [K,M], B [K,N]). */
export type Layout = "nt" | "nn" | "tn";

/** Sizes and addresses in elements; `ld` is the distance between rows. */
export interface MatmulShape {
  M: number;
  N: number;
  K: number;
  lda: number;
  ldb: number;
  ldc: number;
  aOffset?: number;
  bOffset?: number;
  cOffset?: number;
}

/** Everything that may happen to the product on its way into C. */
export interface Epilogue {
  /** f32 vector added to every row, starting at `biasOffset`. */
  bias?: Tensor;
  biasOffset?: number;
  /** Added elementwise; the same shape and addresses as C. */
  residual?: Tensor;
  /** C += instead of C =. */
  accumulate?: boolean;
  /** Scales the product before anything is added. */
  alpha?: number;
}

/** Records C = epilogue(A·B) on single-buffer storages. A and C are f32; B is f32, f16 or bf16. */
export function matmulRaw(
  ctx: Ctx,
  layout: Layout,
  a: Storage,
  b: { storage: Storage; dtype: Dtype },
  c: Storage,
  shape: MatmulShape,
  epilogue: Epilogue = {},
): void {
  const { M, N } = shape;
  const { bias, residual, accumulate = false, alpha = 1, biasOffset = 0 } = epilogue;
  if (b.dtype !== "f32" && b.dtype !== "f16" && b.dtype !== "bf16") {
    throw new GpuError(`Cannot multiply by a matrix of dtype ${b.dtype}`);
  }
  const { aOffset = 0, bOffset = 0, cOffset = 0 } = shape;
  const nothing = emptyBuffer(ctx.gpu);
  const bind = {
    a,
    b: b.storage,
    c,
    bias: bias ? storageOf(bias) : nothing,
    residual: residual ? storageOf(residual) : nothing,
  };
  const params = { ...shape, aOffset, bOffset, cOffset, alpha, biasOffset };
  const flags = { BIAS: !!bias, RESIDUAL: !!residual, ACCUMULATE: accumulate, dtype: b.dtype };
  if (ctx.gpu.class === "cpu" && ctx.gpu.subgroupSize === 8) {
    recordForSubgroups(ctx, layout, bind, params, flags);
    return;
  }
  const { TM, TN } = tiledTile(M, N);
  const variant = { A_T: layout === "tn", B_T: layout === "nt", TM, TN, ...flags };
  const grid = [Math.ceil(M / (16 * TM)), Math.ceil(N / (16 * TN)), 1] as const;
  ctx.r.dispatch(matmulTiled, { variant, bind, params, grid });
}

type Params = Required<MatmulShape> & { alpha: number; biasOffset: number };
type Flags = { BIAS: boolean; RESIDUAL: boolean; ACCUMULATE: boolean; dtype: string };

/** Longer sums over rows of B are taken in pieces of this length. */
const LONG = 2048;

function recordForSubgroups(
  ctx: Ctx,
  layout: Layout,
  bind: Record<string, Storage>,
  p: Params,
  flags: Flags,
): void {
  const { M, N, K, lda, ldb } = p;
  const longWords = ctx.gpu.features.has("wgpu-shader-int64");
  const widest = widestAccess(longWords, flags.dtype, p);
  // Along K, too, where it is B's rows that are loaded.
  const bits = wordBits(longWords, flags.dtype, ldb, p.bOffset, layout === "nt" ? K : 0);
  if (layout === "nt" && M <= 3 && bits && widest.a > 1) {
    const variant = { ROWS: M, ...flags };
    ctx.r.dispatch(matmulFew[bits], { variant, bind, params: { ...p }, grid: [Math.ceil(N / 8), 1, 1] });
    return;
  }
  if (layout === "nn" && M <= 3 && bits && K > 2 * LONG && isPlain(p, flags)) {
    recordFewNn(ctx, bind, p, flags, bits);
    return;
  }
  const fits = ({ access: { a, b, c } }: { access: Access }) =>
    a <= widest.a && b <= widest.b && c <= widest.c;
  const { access, kernel } = matmulSubgroup.find(fits)!;
  // A tile reads a narrow stripe of B along all of K. Where that steps from row to row, a long stripe touches
  // more pages than the processor keeps translations of: pieces make a head's gradient 1.12 times faster.
  const piece = layout !== "nt" && K > 2 * LONG ? LONG : K;
  for (let k0 = 0; k0 < K; k0 += piece) {
    const last = k0 + piece >= K;
    const part = {
      ...p,
      K: Math.min(piece, K - k0),
      aOffset: p.aOffset + k0 * (layout === "tn" ? lda : 1),
      bOffset: p.bOffset + k0 * ldb,
    };
    for (const { row0, rows, GROUPS, COLS } of subgroupTiles(M, N, access.c === 4)) {
      const variant = {
        ...{ layout, GROUPS, COLS, TAIL: part.K % 8 !== 0, dtype: flags.dtype },
        ...{
          BIAS: flags.BIAS && last,
          RESIDUAL: flags.RESIDUAL && last,
          ACCUMULATE: flags.ACCUMULATE || k0 > 0,
        },
      };
      const grid = [Math.ceil(rows / (8 * GROUPS)), Math.ceil(N / COLS), 1] as const;
      ctx.r.dispatch(kernel, { variant, bind, params: { ...part, row0 }, grid });
    }
  }
}

/** Is C a whole matrix that gets the product and nothing else? */
const isPlain = ({ N, ldc, cOffset, alpha }: Params, { BIAS, RESIDUAL }: Flags) =>
  ldc === N && cOffset === 0 && alpha === 1 && !BIAS && !RESIDUAL;

/** C (+)= A·B of few rows in pieces of K side by side, which are then added up in order. */
function recordFewNn(
  ctx: Ctx,
  { a, b, c }: Record<string, Storage>,
  p: Params,
  flags: Flags,
  bits: WordBits,
): void {
  const { M, N, K, lda, ldb, aOffset, bOffset } = p;
  const { dtype, ACCUMULATE: ACC } = flags;
  const pieces = Math.ceil(K / PIECE);
  const parts = storageOf(temp(ctx, "parts of a product", [pieces, M, N]));
  ctx.r.dispatch(matmulFewNn[bits], {
    variant: { ROWS: M, dtype },
    bind: { a, b, parts },
    params: { M, N, K, lda, ldb, aOffset, bOffset },
    grid: [Math.ceil(N / columnsOf(dtype, bits)), pieces, 1],
  });
  ctx.r.dispatch(columnSum, {
    variant: { ACC },
    bind: { x: parts, y: c },
    params: { rows: pieces, width: M * N },
    grid: [Math.ceil(M * N / 64), 1, 1],
  });
}

/** The widest words, four of which divide all these places of elements. */
function wordBits(longWords: boolean, dtype: string, ...at: number[]): WordBits | undefined {
  const whole = (bits: WordBits) => at.every((x) => x % stepOf(dtype, bits) === 0);
  return longWords && whole(64) ? 64 : whole(32) ? 32 : undefined;
}

/** The most words that loads and stores may move, given where the rows of the operands start. */
function widestAccess(longWords: boolean, dtype: string, p: Params): Access {
  const aligned = (n: number, ...at: number[]) => at.every((x) => x % n === 0);
  const long = longWords && dtype === "f32";
  return {
    a: long && aligned(8, p.lda, p.aOffset) ? 8 : aligned(4, p.lda, p.aOffset) ? 4 : 1,
    b: long && aligned(8, p.ldb, p.bOffset) ? 8 : aligned(stepOf(dtype, 32), p.ldb, p.bOffset) ? 4 : 1,
    c: aligned(4, p.N, p.ldc, p.cOffset, p.biasOffset) ? 4 : 1,
  };
}

/**
 * Columns of a tile by its groups, with wide and with narrow stores. Measured with wide ones, f32 `nt`:
 * GFLOP/s on 2 cores by CPU time at 256×768×768 (8×1536×576 for one group), and ms of CPU to compile.
 */
const WIDTH: Record<number, { wide: number; narrow: number }> = {
  1: { wide: 64, narrow: 16 }, // 22, 230 ms
  2: { wide: 64, narrow: 16 }, // 42, 440 ms
  3: { wide: 32, narrow: 16 }, // 40, 290 ms
  4: { wide: 32, narrow: 16 }, // 47, 380 ms; 64 columns: 52, 740 ms
  5: { wide: 32, narrow: 16 }, // 34 to 40 rows take 0.85 to 0.95 of the time of six groups
  6: { wide: 32, narrow: 16 }, // 43 of which an eighth is padding, 600 ms
};

/**
 * Tiles of products of many rows, where their second of compiling pays. Measured as above at 384×1536×576:
 * 71 (`nn` 62) GFLOP/s against 57 (53) of four groups × 32 columns; 1.4 s of CPU to compile.
 */
const LARGE = { rows: 192, GROUPS: 6, COLS: 64 };

interface SubgroupTile {
  row0: number;
  rows: number;
  GROUPS: number;
  COLS: number;
}

/** Large tiles for most rows where there are many and the columns fit, and small ones for the rest. */
function subgroupTiles(M: number, N: number, wide: boolean): SubgroupTile[] {
  const { GROUPS, COLS } = LARGE;
  if (!wide || M < LARGE.rows || Math.ceil(N / COLS) * COLS > 1.05 * N) return smallTiles(M, N, wide);
  const rest = Math.ceil(M / 8) % GROUPS;
  // One or two groups left over are merged with the last six, to make two tiles of about four.
  const last = rest === 1 || rest === 2 ? GROUPS + rest : rest;
  const tall = Math.min(M, 8 * (Math.ceil(M / 8) - last));
  const below = tall < M ? smallTiles(M - tall, N, wide) : [];
  return [
    { row0: 0, rows: tall, GROUPS, COLS },
    ...below.map((tile) => ({ ...tile, row0: tile.row0 + tall })),
  ];
}

/**
 * Rows in groups of eight: tiles of four groups, and one of the others where it saves padding, so at most two
 * pipelines a product. A store of one word compiles as slowly as one of four, so C without wide stores gets
 * narrow tiles.
 */
function smallTiles(M: number, N: number, wide: boolean): SubgroupTile[] {
  const groups = Math.ceil(M / 8);
  const rest = groups % 4;
  // Five or six groups are one tile, and one or two left over are merged with the last four.
  const last = groups > 4 && (rest === 1 || rest === 2) ? 4 + rest : rest;
  const tall = 8 * (groups - last);
  const tiles: SubgroupTile[] = [];
  const add = (row0: number, rows: number, GROUPS: number) => {
    const widest = WIDTH[GROUPS][wide ? "wide" : "narrow"];
    const COLS = [8, 16, 32, 64].find((cols) => cols >= Math.min(N, widest))!;
    tiles.push({ row0, rows, GROUPS, COLS });
  };
  if (tall > 0) add(0, Math.min(M, tall), 4);
  if (last > 0) add(tall, M - tall, last);
  return tiles;
}

/** 64×64 for large products, smaller tiles where that would leave most of the device idle. */
function tiledTile(M: number, N: number): { TM: number; TN: number } {
  const TM = M <= 16 ? 1 : M <= 32 ? 2 : 4;
  const TN = N <= 16 ? 1 : N <= 32 ? 2 : 4;
  return { TM, TN };
}

/** C = A·B for dense unsharded tensors. @throws {GpuError} when inner sizes differ */
export function matmul(ctx: Ctx, layout: Layout, a: Tensor, b: Tensor, c: Tensor, epilogue?: Epilogue): void {
  const A = matrixOf(a), B = matrixOf(b), C = matrixOf(c);
  const [M, K] = layout === "tn" ? [A.cols, A.rows] : [A.rows, A.cols];
  const [N, KB] = layout === "nt" ? [B.rows, B.cols] : [B.cols, B.rows];
  if (K !== KB) {
    throw new GpuError(`Cannot multiply ${describe(a)} by ${describe(b)}: inner sizes ${K} and ${KB} differ`);
  }
  if (C.rows !== M || C.cols !== N) {
    throw new GpuError(
      `Cannot store the [${M}, ${N}] product of ${describe(a)} and ${describe(b)} in ${describe(c)}`,
    );
  }
  const shape = { M, N, K, lda: A.cols, ldb: B.cols, ldc: N };
  matmulRaw(
    ctx,
    layout,
    storageOf(a),
    { storage: storageOf(b), dtype: b.dtype },
    storageOf(c),
    shape,
    epilogue,
  );
}

const empties = new WeakMap<Gpu, GpuBuffer>();

/** Bound where a kernel has a binding that the variant does not use. */
export function emptyBuffer(gpu: Gpu): GpuBuffer {
  let buffer = empties.get(gpu);
  if (!buffer) empties.set(gpu, buffer = gpu.memory.alloc(16, "nothing", "probe"));
  return buffer;
}
