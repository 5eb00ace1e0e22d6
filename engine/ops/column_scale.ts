/** Columns scaled by a vector, and products summed column by column: the diagonal factor of an SVD form. */
import { GpuError } from "../gpu/errors.ts";
import { columnDotKernel, scaleColumnsKernel } from "../kernels/columns.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { fill } from "./elementwise.ts";

/**
 * y[i, j] = alpha·x[i, j]·s[first + j]; x [rows, cols], s a vector of at least first + cols → [rows, cols].
 * Gradients to x and to that part of s. Kept for backward: x and s.
 * @throws {GpuError} when s is too short
 */
export function scaleColumns(
  ctx: Ctx,
  x: Tensor,
  s: Tensor,
  { first = 0, alpha = 1 }: { first?: number; alpha?: number } = {},
): Tensor {
  const { cols } = matrixOf(x);
  if (first + cols > sizeOf(s.shape)) {
    throw new GpuError(`Cannot scale the columns of ${describe(x)} by ${describe(s)} from ${first} on`);
  }
  const y = temp(ctx, `scaled ${x.label}`, x.shape);
  scaled(ctx, x, s, y, { first, alpha, ACC: false });
  const { tape } = ctx;
  if (!tape?.needs(x, s)) return y;
  tape.push(y, () => {
    const dy = tape.grad(y);
    if (!dy) return;
    if (tape.needs(x)) {
      const { grad, accumulate: ACC } = gradTarget(ctx, x);
      scaled(ctx, dy, s, grad, { first, alpha, ACC });
    }
    if (tape.needs(s)) {
      const { grad, accumulate } = gradTarget(ctx, s);
      if (!accumulate) fill(ctx, grad, 0);
      columnDot(ctx, dy, x, grad, { first, alpha, accumulate: true });
    }
  });
  return y;
}

/**
 * into[first + c] (+)= alpha·Σ_r a[r, c]·b[r, c]; a and b [rows, cols] of one shape. Outside the tape.
 * @throws {GpuError} when the shapes do not fit
 */
export function columnDot(
  ctx: Ctx,
  a: Tensor,
  b: Tensor,
  into: Tensor,
  { first = 0, alpha = 1, accumulate = false }: { first?: number; alpha?: number; accumulate?: boolean } = {},
): void {
  const { rows, cols } = matrixOf(a);
  if (sizeOf(a.shape) !== sizeOf(b.shape) || first + cols > sizeOf(into.shape)) {
    throw new GpuError(
      `Cannot multiply the columns of ${describe(a)} and ${describe(b)} into ${
        describe(into)
      } from ${first} on`,
    );
  }
  ctx.r.dispatch(columnDotKernel, {
    variant: { ACC: accumulate },
    bind: { a: storageOf(a), b: storageOf(b), y: storageOf(into) },
    params: { rows, cols, first, alpha },
    grid: [Math.ceil(cols / 64), 1, 1],
  });
}

interface How {
  first: number;
  alpha: number;
  ACC: boolean;
}

function scaled(ctx: Ctx, x: Tensor, s: Tensor, y: Tensor, { first, alpha, ACC }: How): void {
  const n = sizeOf(x.shape);
  ctx.r.dispatch(scaleColumnsKernel, {
    variant: { ACC },
    bind: { x: storageOf(x), s: storageOf(s), y: storageOf(y) },
    params: { n, cols: matrixOf(x).cols, first, alpha },
    grid: elementGrid(n),
  });
}
