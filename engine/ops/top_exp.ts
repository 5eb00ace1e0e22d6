/** The mean of the k largest exponentials: a soft maximum that pushes only what is worst. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { topExpForward, topExpToInputs } from "../kernels/top_exp.ts";
import { describe, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** What u is made of. */
export interface TopExp {
  /** u = sign·x + c − shift. Default 1 and 0. */
  sign?: 1 | -1;
  c?: number;
  /** How many of the largest; all when there are fewer. */
  k: number;
  /** What the mean is multiplied by. Default 1. */
  scale?: number;
  /** x is square and its diagonal is meant. */
  diagonal?: boolean;
  /** What is subtracted from column j of x: element (j, j) of a square matrix. */
  shift?: Tensor;
}

/**
 * value f32 [1] += scale · mean of the k largest exp(u), u = sign·x + c − diag(shift), where x is [m, n], or with
 * `diagonal` the n elements of the diagonal of x [n, n]. Its gradient flows to x and shift when the tape goes
 * back. Elements equal to the k-th largest share its places; above u = 30 exp and its gradient stay as they are
 * there.
 * @throws {GpuError} when shift does not fit the columns of x
 */
export function topExp(ctx: Ctx, x: Tensor, value: Tensor, options: TopExp): void {
  const { sign = 1, c = 0, scale = 1, diagonal = false, shift } = options;
  const cols = x.shape.at(-1)!;
  const n = diagonal ? cols : sizeOf(x.shape);
  if (shift && (shift.shape[0] !== cols || shift.shape[1] !== cols)) {
    throw new GpuError(`Cannot shift the columns of ${describe(x)} by the diagonal of ${describe(shift)}`);
  }
  const xStep = diagonal ? cols + 1 : 1, shiftStep = cols + 1;
  const weight = temp(ctx, `weights of ${x.label}`, [n]);
  ctx.r.dispatch(topExpForward, {
    variant: { WG: rowWorkgroup(ctx.gpu, n), SHIFT: shift !== undefined },
    // Without a shift x stands in for the binding.
    bind: {
      x: storageOf(x),
      shift: storageOf(shift ?? x),
      weight: storageOf(weight),
      value: storageOf(value),
    },
    params: { n, cols, k: Math.min(options.k, n), xStep, shiftStep, sign, c, scale },
    grid: [1, 1, 1],
  });
  const { tape } = ctx;
  if (!tape?.needs(x, shift)) return;
  const back = (t: Tensor, SHIFT: boolean, step: number) => {
    if (!tape.needs(t)) return;
    const { grad, accumulate: ACC } = gradTarget(ctx, t);
    const size = sizeOf(t.shape);
    ctx.r.dispatch(topExpToInputs, {
      variant: { SHIFT, ACC },
      bind: { weight: storageOf(weight), d: storageOf(grad) },
      params: { size, n, cols, step, sign },
      grid: foldGrid(Math.ceil(size / 64)),
    });
  };
  tape.defer(() => {
    back(x, false, xStep);
    if (shift) back(shift, true, shiftStep);
  });
}
