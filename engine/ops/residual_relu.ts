/** The residual blocks of MEND and MALMEN, and the learned step that scales what they make. */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import {
  gainRowsDotKernel,
  gainRowsKernel,
  residualReluBackwardKernel,
  residualReluKernel,
} from "../kernels/hyper.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { fill, passGrad } from "./elementwise.ts";

/** Scale and shift of each mode, and the rows of each. */
export interface Modes {
  /** [modes, width] */
  readonly scale: Tensor;
  /** [modes, width] */
  readonly shift: Tensor;
  /** u32 [modes + 1]: mode q has the rows first[q] up to first[q + 1]; together they are all rows. */
  readonly first: Tensor;
}

/**
 * y = h + max(0, x ⊙ scale + shift) (MEND), or with `after` y = h + scale ⊙ max(0, x) + shift (MALMEN); h and x
 * [rows, width]. The derivative at exactly 0 is 1: at initialisation x is 0 everywhere, and with 0 there nothing
 * would ever be learnt. Gradients to h, x, scale and shift. Kept for backward: x.
 * @throws {GpuError} when the shapes do not fit
 */
export function residualRelu(
  ctx: Ctx,
  h: Tensor,
  x: Tensor,
  { scale, shift, first }: Modes,
  { after: AFTER = false }: { after?: boolean } = {},
): Tensor {
  const n = sizeOf(h.shape), { cols: width } = matrixOf(h);
  const modes = first.shape[0] - 1;
  const fits = sizeOf(x.shape) === n && [scale, shift].every((t) => sizeOf(t.shape) === modes * width);
  if (!fits) throw new GpuError(`${describe(x)} and ${describe(scale)} make no block of ${describe(h)}`);
  const y = temp(ctx, `block of ${h.label}`, h.shape);
  const given = { x: storageOf(x), s: storageOf(scale), t: storageOf(shift), first: storageOf(first) };
  ctx.r.dispatch(residualReluKernel, {
    variant: { AFTER },
    bind: { ...given, h: storageOf(h), y: storageOf(y) },
    params: { n, width, modes },
    grid: elementGrid(n),
  });
  const { tape } = ctx;
  if (tape?.needs(h, x, scale, shift)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      const [dx, ds, dt] = [x, scale, shift].map((t) => temp(ctx, `d ${t.label}`, t.shape));
      ctx.r.dispatch(residualReluBackwardKernel, {
        variant: { AFTER },
        bind: { ...given, dy: storageOf(dy), dx: storageOf(dx), ds: storageOf(ds), dt: storageOf(dt) },
        params: { width, modes },
        grid: [Math.ceil(modes * width / 64), 1, 1],
      });
      passGrad(ctx, x, dx);
      passGrad(ctx, scale, ds);
      passGrad(ctx, shift, dt);
      passGrad(ctx, h, dy);
    });
  }
  return y;
}

/**
 * y[r] = alpha·s[at]·x[r] of kept rows and 0 of the others; x [rows, width], s a vector, keep u32 [rows]. Gradients to
 * x and to s[at]. Kept for backward: x and s.
 */
export function gainRows(
  ctx: Ctx,
  x: Tensor,
  s: Tensor,
  keep: Tensor,
  { at, alpha = 1 }: { at: number; alpha?: number },
): Tensor {
  const { rows, cols: width } = matrixOf(x);
  const n = rows * width;
  if (at >= sizeOf(s.shape) || keep.shape[0] !== rows) {
    throw new GpuError(`Cannot scale ${describe(x)} by element ${at} of ${describe(s)}`);
  }
  const y = temp(ctx, `scaled ${x.label}`, x.shape);
  const dispatch = (from: Tensor, to: Tensor, ACC: boolean) =>
    ctx.r.dispatch(gainRowsKernel, {
      variant: { ACC },
      bind: { x: storageOf(from), s: storageOf(s), keep: storageOf(keep), y: storageOf(to) },
      params: { n, width, at, alpha },
      grid: elementGrid(n),
    });
  dispatch(x, y, false);
  const { tape } = ctx;
  if (tape?.needs(x, s)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      if (tape.needs(x)) {
        const { grad, accumulate } = gradTarget(ctx, x);
        dispatch(dy, grad, accumulate);
      }
      if (tape.needs(s)) {
        const { grad, accumulate } = gradTarget(ctx, s);
        if (!accumulate) fill(ctx, grad, 0);
        ctx.r.dispatch(gainRowsDotKernel, {
          variant: { WG: rowWorkgroup(ctx.gpu, n) },
          bind: { a: storageOf(dy), b: storageOf(x), keep: storageOf(keep), y: storageOf(grad) },
          params: { n, width, at, alpha },
          grid: [1, 1, 1],
        });
      }
    });
  }
  return y;
}
