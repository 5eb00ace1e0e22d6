/**
 * Matrix product of tensors or of row ranges of them, in three layouts. This is the raw operation without
 * a tape; `linear` builds the differentiable one from it.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { VariantValue } from "../gpu/kernel.ts";
import type { GpuBuffer, Storage } from "../gpu/memory.ts";
import { matmulSubgroup, matmulTiled } from "../kernels/matmul.ts";
import { describe, type Dtype, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

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
  const { M, N, K } = shape;
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
    const wide = wideAccess(b.dtype, { ...shape, aOffset, bOffset, cOffset }, biasOffset);
    const kernel = matmulSubgroup(wide);
    for (const { row0, rows, GROUPS, COLS } of subgroupTiles(M, N, wide.c)) {
      const variant = { layout, GROUPS, COLS, TAIL: K % 8 !== 0, ...flags };
      const grid = [Math.ceil(rows / (8 * GROUPS)), Math.ceil(N / COLS), 1] as const;
      ctx.r.dispatch(kernel, { variant, bind, params: { ...params, row0 }, grid });
    }
  } else {
    const { TM, TN } = tiledTile(M, N);
    const variant: Record<string, VariantValue> = {
      A_T: layout === "tn",
      B_T: layout === "nt",
      TM,
      TN,
      ...flags,
    };
    const grid = [Math.ceil(M / (16 * TM)), Math.ceil(N / (16 * TN)), 1] as const;
    ctx.r.dispatch(matmulTiled, { variant, bind, params, grid });
  }
}

/** Which operands have all rows on addresses that loads and stores of four words can reach. */
function wideAccess(dtype: Dtype, s: Required<MatmulShape>, biasOffset: number) {
  const unit = dtype === "f32" ? 4 : 8;
  return {
    a: s.lda % 4 === 0 && s.aOffset % 4 === 0,
    b: s.ldb % unit === 0 && s.bOffset % unit === 0,
    c: [s.N, s.ldc, s.cOffset, biasOffset].every((x) => x % 4 === 0),
  };
}

/**
 * Rows in groups of eight: as few tiles as possible, and none of them mostly padding. At most two heights a
 * product, each a pipeline. Widths keep groups × columns, and so compile times, near those of 4 × 32; a store
 * of one word compiles as slowly as one of four, so C without wide stores gets narrow tiles.
 */
function subgroupTiles(M: number, N: number, wide: boolean) {
  const groups = Math.ceil(M / 8);
  const rest = groups <= 4 ? groups : groups % 4;
  const last = rest === 1 || rest === 2 ? (groups > 4 ? 6 : rest) : rest;
  const tiles: { row0: number; rows: number; GROUPS: number; COLS: number }[] = [];
  const add = (row0: number, rows: number, GROUPS: number) => {
    const widest = !wide ? 16 : GROUPS <= 2 ? 64 : 32;
    const COLS = [8, 16, 32, 64].find((cols) => cols >= Math.min(N, widest))!;
    tiles.push({ row0, rows, GROUPS, COLS });
  };
  const tall = last === 6 ? groups - rest - 4 : groups - rest;
  if (tall > 0) add(0, Math.min(M, 8 * tall), 4);
  if (8 * tall < M) add(8 * tall, M - 8 * tall, last);
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
