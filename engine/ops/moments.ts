/**
 * Running moments of pairs of rows (u, δ), and rows standardised by them: what MEND's normaliser is made of
 * (Mitchell et al. 2022, section 3.2; memory-and-meta guide section 2.2). Nothing here has a gradient.
 */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { countRowsKernel, keptRowsKernel, mergeMomentsKernel, standardiseKernel } from "../kernels/hyper.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, temp } from "./context.ts";

/** Moments of each column, f32 [width]: the mean, and the sum of squared distances from it. */
export interface Moments {
  readonly mean: Tensor;
  readonly scatter: Tensor;
}

/** u32 [rows]: 1 where both u [rows, in] and d [rows, out] have an element that is not exactly 0. */
export function keptRows(ctx: Ctx, u: Tensor, d: Tensor): Tensor {
  const { rows, cols: in_width } = matrixOf(u), { cols: out_width } = matrixOf(d);
  if (matrixOf(d).rows !== rows) throw new GpuError(`The rows of ${describe(u)} and ${describe(d)} differ`);
  const keep = temp(ctx, "kept rows", [rows], "u32");
  ctx.r.dispatch(keptRowsKernel, {
    bind: { u: storageOf(u), d: storageOf(d), keep: storageOf(keep) },
    params: { rows, in_width, out_width },
    grid: [Math.ceil(rows / 64), 1, 1],
  });
  return keep;
}

/**
 * Takes the kept rows of x [rows, width] into the moments of `count` u32 [1] rows, as one row after the other
 * would. The count stays: {@link countRows} when all moments that share it have their rows.
 */
export function mergeMoments(
  ctx: Ctx,
  x: Tensor,
  keep: Tensor,
  count: Tensor,
  { mean, scatter }: Moments,
): void {
  const { rows, cols: width } = matrixOf(x);
  requireWidth(x, mean, width);
  ctx.r.dispatch(mergeMomentsKernel, {
    bind: {
      x: storageOf(x),
      keep: storageOf(keep),
      count: storageOf(count),
      mean: storageOf(mean),
      scatter: storageOf(scatter),
    },
    params: { rows, width },
    grid: [Math.ceil(width / 64), 1, 1],
  });
}

/** count u32 [1] += the number of kept rows. */
export function countRows(ctx: Ctx, keep: Tensor, count: Tensor): void {
  const bind = { keep: storageOf(keep), count: storageOf(count) };
  ctx.r.dispatch(countRowsKernel, { bind, params: { rows: keep.shape[0] }, grid: [1, 1, 1] });
}

/**
 * (x − mean)/(deviation + 1e-7), within ±limit, of kept rows and 0 of the others; x [rows, width] into the block of h
 * that begins at `row`, `first`. The count must be 2 at least. Without a limit a column that never moved before divides by
 * 1e-7 (guide section 2.8).
 */
export function standardise(
  ctx: Ctx,
  x: Tensor,
  keep: Tensor,
  count: Tensor,
  { mean, scatter }: Moments,
  into: { h: Tensor; row: number; first: number },
  limit: number,
): void {
  const { cols: width } = matrixOf(x);
  const { rows: room, cols: ld } = matrixOf(into.h);
  requireWidth(x, mean, width);
  if (into.row + matrixOf(x).rows > room || into.first + width > ld) {
    throw new GpuError(`${describe(x)} does not fit into ${describe(into.h)} at ${into.row}, ${into.first}`);
  }
  const n = sizeOf(x.shape);
  ctx.r.dispatch(standardiseKernel, {
    bind: {
      x: storageOf(x),
      keep: storageOf(keep),
      count: storageOf(count),
      mean: storageOf(mean),
      scatter: storageOf(scatter),
      h: storageOf(into.h),
    },
    params: { n, width, row: into.row, ld, first: into.first, limit },
    grid: elementGrid(n),
  });
}

function requireWidth(x: Tensor, mean: Tensor, width: number): void {
  if (mean.shape[0] !== width) throw new GpuError(`${describe(mean)} are no moments of ${describe(x)}`);
}
