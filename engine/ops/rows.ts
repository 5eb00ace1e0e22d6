/**
 * Whole rows: picking them, putting them back, adding edits to them, and keeping them beyond the plan. These
 * are the hooks by which editing methods read and write hidden states.
 */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { addRows, columnSum, copyRows, groupSum } from "../kernels/rows.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { copy, fill, passGrad } from "./elementwise.ts";

/**
 * y[i] = x[index[i]]; x [rows, width], index u32 [n] → [n, width]. Gradient to x, for which the indices must
 * be distinct. Nothing kept for backward but the index.
 */
export function gatherRows(ctx: Ctx, x: Tensor, index: Tensor): Tensor {
  const y = temp(ctx, `rows of ${x.label}`, [index.shape[0], matrixOf(x).cols]);
  move(ctx, x, index, y, { SCATTER: false, ACC: false });
  if (ctx.tape?.needs(x)) {
    ctx.tape.push(y, () => {
      const dy = ctx.tape!.grad(y);
      if (!dy) return;
      const { grad, accumulate } = gradTarget(ctx, x);
      if (!accumulate) fill(ctx, grad, 0);
      move(ctx, dy, index, grad, { SCATTER: true, ACC: true });
    });
  }
  return y;
}

/**
 * into[index[i]] = src[i]; src [n, width], index u32 [n] of distinct rows of into [rows, width]. Other rows
 * keep what they hold (nothing defined in a fresh temporary). Gradient to src: the rows of into's gradient,
 * if it gets one; into's gradient itself is left as it is.
 */
export function scatterRows(ctx: Ctx, src: Tensor, index: Tensor, into: Tensor): void {
  move(ctx, src, index, into, { SCATTER: true, ACC: false });
  if (!ctx.tape?.needs(src)) return;
  const tape = ctx.tape;
  tape.require(into);
  tape.defer(() => {
    const grad = tape.grad(into);
    if (!grad) return;
    const { grad: dsrc, accumulate: ACC } = gradTarget(ctx, src);
    move(ctx, grad, index, dsrc, { SCATTER: false, ACC });
  });
}

/**
 * A copy y of x with y[index[i]] += delta[group[i]]; x [rows, width], index and group u32 [n], the indices
 * distinct, delta [groups, width]. Gradients: dx = dy, ddelta[g] = Σ dy[index[i]] over the i of group g.
 * Nothing kept for backward but index and group.
 */
export function addToRows(ctx: Ctx, x: Tensor, index: Tensor, group: Tensor, delta: Tensor): Tensor {
  const width = matrixOf(x).cols;
  const count = index.shape[0];
  if (matrixOf(delta).cols !== width || group.shape[0] !== count) {
    throw new GpuError(
      `Cannot add ${describe(delta)} by ${describe(group)} to ${describe(index)} of ${describe(x)}`,
    );
  }
  const y = temp(ctx, `edited ${x.label}`, x.shape);
  copy(ctx, x, y);
  const where = { index: storageOf(index), group: storageOf(group) };
  ctx.r.dispatch(addRows, {
    bind: { delta: storageOf(delta), ...where, y: storageOf(y) },
    params: { n: count * width, width },
    grid: elementGrid(count * width),
  });
  if (ctx.tape?.needs(x, delta)) {
    const tape = ctx.tape;
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      if (tape.needs(delta)) {
        const { grad, accumulate: ACC } = gradTarget(ctx, delta);
        const n = sizeOf(delta.shape);
        ctx.r.dispatch(groupSum, {
          variant: { INDEXED: true, ACC },
          // There is no weight in this variant: dy stands in for the binding.
          bind: { x: storageOf(dy), ...where, weight: storageOf(dy), y: storageOf(grad) },
          params: { n, width, count },
          grid: foldGrid(Math.ceil(n / 64)),
        });
      }
      passGrad(ctx, x, dy);
    });
  }
  return y;
}

/**
 * into[g] = Σ weight[i]·x[i] over the i with group[i] = g; x [n, width], group u32 [n], weight f32 [n],
 * into [groups, width]; with weights 1/n it is the mean. Outside the tape.
 */
export function groupMean(ctx: Ctx, x: Tensor, group: Tensor, weight: Tensor, into: Tensor): void {
  const { rows: count, cols: width } = matrixOf(x);
  if (matrixOf(into).cols !== width || group.shape[0] !== count || weight.shape[0] !== count) {
    throw new GpuError(
      `Cannot average ${describe(x)} by ${describe(group)} and ${describe(weight)} into ${describe(into)}`,
    );
  }
  const n = sizeOf(into.shape);
  ctx.r.dispatch(groupSum, {
    variant: { WEIGHTED: true },
    // There is no index in this variant: the group stands in for the binding.
    bind: {
      x: storageOf(x),
      index: storageOf(group),
      group: storageOf(group),
      weight: storageOf(weight),
      y: storageOf(into),
    },
    params: { n, width, count },
    grid: foldGrid(Math.ceil(n / 64)),
  });
}

/** Copies x, or its rows at `index` u32 [n], to a tensor that outlives the plan. Outside the tape. */
export function capture(ctx: Ctx, x: Tensor, index: Tensor | undefined, into: Tensor): void {
  if (index) move(ctx, x, index, into, { SCATTER: false, ACC: false });
  else copy(ctx, x, into);
}

/**
 * Copies the complete gradient of x to a tensor that outlives the plan; zeros when x gets none. Call it right
 * after the op that made x: backward then passes here when all users of x have contributed and before the
 * buffer is handed on.
 * @throws {GpuError} when x needs no gradient
 */
export function captureGrad(ctx: Ctx, x: Tensor, into: Tensor): void {
  if (!ctx.tape?.needs(x)) {
    throw new GpuError(`Cannot capture the gradient of ${describe(x)}: nothing asks for it`);
  }
  const tape = ctx.tape;
  tape.defer(() => {
    const grad = tape.grad(x);
    if (grad) copy(ctx, grad, into);
    else fill(ctx, into, 0);
  });
}

/** Backward of a bias [width] added to every row: its gradient (+)= Σ_r dy[r], dy [rows, width]. */
export function addColumnSum(ctx: Ctx, dy: Tensor, bias: Tensor): void {
  const { rows, cols: width } = matrixOf(dy);
  const { grad, accumulate: ACC } = gradTarget(ctx, bias);
  ctx.r.dispatch(columnSum, {
    variant: { ACC },
    bind: { x: storageOf(dy), y: storageOf(grad) },
    params: { rows, width },
    grid: [Math.ceil(width / 64), 1, 1],
  });
}

/** Copies rows between x and y; see the kernel. @throws {GpuError} when the sizes do not fit */
function move(
  ctx: Ctx,
  x: Tensor,
  index: Tensor,
  y: Tensor,
  variant: { SCATTER: boolean; ACC: boolean },
): void {
  const { cols: width } = matrixOf(x);
  const count = index.shape[0];
  const dense = matrixOf(variant.SCATTER ? x : y);
  if (matrixOf(y).cols !== width || dense.rows !== count) {
    throw new GpuError(`Cannot copy rows of ${describe(x)} to ${describe(y)} by ${describe(index)}`);
  }
  ctx.r.dispatch(copyRows, {
    variant,
    bind: { x: storageOf(x), index: storageOf(index), y: storageOf(y) },
    params: { n: count * width, width },
    grid: elementGrid(count * width),
  });
}
