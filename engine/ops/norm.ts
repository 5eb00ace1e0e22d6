/** Normalisation of rows: layer norm (Ba 2016) and RMS norm (Zhang and Sennrich 2019). */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { normForward, normToInput, normToWeight } from "../kernels/norm.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { addColumnSum } from "./rows.ts";

/**
 * y = x/√(mean(x²) + eps)·weight for each row; x [rows, width], weight [width] f32 → y [rows, width].
 * Gradients to x and weight. Kept for backward: x and [rows, 2] statistics.
 * @throws {GpuError} when the weight does not fit the rows
 */
export function rmsNorm(ctx: Ctx, x: Tensor, weight: Tensor, eps: number): Tensor {
  return normalise(ctx, x, weight, undefined, eps, false);
}

/**
 * y = (x − mean)/√(variance + eps)·weight + bias for each row, variance without Bessel's correction;
 * x [rows, width], weight and bias [width] f32 → y [rows, width]. Gradients to x, weight and bias.
 * Kept for backward: x and [rows, 2] statistics.
 * @throws {GpuError} when weight or bias do not fit the rows
 */
export function layerNorm(
  ctx: Ctx,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  eps: number,
): Tensor {
  return normalise(ctx, x, weight, bias, eps, true);
}

function normalise(
  ctx: Ctx,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  eps: number,
  CENTER: boolean,
): Tensor {
  const { rows, cols: width } = matrixOf(x);
  for (const t of [weight, bias]) {
    if (t && (t.dtype !== "f32" || t.shape.length !== 1 || t.shape[0] !== width)) {
      throw new GpuError(
        `Cannot normalise ${describe(x)} with ${describe(t)} of dtype ${t.dtype}: f32 [${width}] fits`,
      );
    }
  }
  const WG = rowWorkgroup(ctx.gpu, width);
  const grid = foldGrid(rows);
  const y = temp(ctx, `norm ${x.label}`, x.shape);
  const stats = temp(ctx, `statistics of ${x.label}`, [rows, 2]);
  ctx.r.dispatch(normForward, {
    variant: { CENTER, BIAS: bias !== undefined, WG },
    bind: {
      x: storageOf(x),
      weight: storageOf(weight),
      bias: storageOf(bias ?? weight),
      y: storageOf(y),
      stats: storageOf(stats),
    },
    params: { rows, width, eps },
    grid,
  });
  if (!ctx.tape?.needs(x, weight, bias)) return y;
  const tape = ctx.tape;
  tape.push(y, () => {
    const dy = tape.grad(y);
    if (!dy) return;
    const given = { x: storageOf(x), stats: storageOf(stats), dy: storageOf(dy) };
    if (tape.needs(x)) {
      const { grad, accumulate: ACC } = gradTarget(ctx, x);
      const bind = { ...given, weight: storageOf(weight), dx: storageOf(grad) };
      ctx.r.dispatch(normToInput, { variant: { CENTER, ACC, WG }, bind, params: { rows, width }, grid });
    }
    if (tape.needs(weight)) {
      const { grad, accumulate: ACC } = gradTarget(ctx, weight);
      const bind = { ...given, dw: storageOf(grad) };
      const columns = [Math.ceil(width / 64), 1, 1] as const;
      ctx.r.dispatch(normToWeight, { variant: { ACC }, bind, params: { rows, width }, grid: columns });
    }
    if (bias && tape.needs(bias)) addColumnSum(ctx, dy, bias);
  });
  return y;
}
