/**
 * Adafactor (Shazeer and Stern 2018) with a fixed rate, as Hugging Face's optimiser is with `relative_step` and
 * `scale_parameter` off: second moments kept as a row's and a column's, no first moment, updates clipped by their
 * root mean square. All state stays on the device.
 */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { adafactorColumns, adafactorRows, adafactorScale, adafactorStep } from "../kernels/adafactor.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, temp } from "./context.ts";

/** A matrix to train and what is kept of its gradients; all f32. */
export interface AdafactorOptions {
  /** [rows, width] */
  param: Tensor;
  grad: Tensor;
  /** [rows] and [width], zero at the start. */
  rowMoments: Tensor;
  columnMoments: Tensor;
  /** The clock, u32 [1]: 1 in the first step, see `advance`. */
  step: Tensor;
  lr: number;
  /** Moments keep 1 − t^−decay of themselves. */
  decay?: number;
  /** The root mean square of an update before `lr` is at most this. */
  clip?: number;
  /** Added to each squared gradient. */
  eps?: number;
}

/** One step. @throws {GpuError} where the sizes do not fit */
export function adafactor(ctx: Ctx, options: AdafactorOptions): void {
  const { param, grad, rowMoments, columnMoments, step, lr, decay = 0.8, clip = 1, eps = 1e-30 } = options;
  const { rows, cols: width } = matrixOf(param);
  for (const [t, size] of [[grad, rows * width], [rowMoments, rows], [columnMoments, width]] as const) {
    if (sizeOf(t.shape) !== size) {
      throw new GpuError(`Cannot step ${describe(param)} with ${describe(t)}: their sizes do not fit`);
    }
  }
  const g = storageOf(grad), moments = storageOf(rowMoments), columns = storageOf(columnMoments);
  const share = storageOf(temp(ctx, "shares of rows", [rows])), scale = storageOf(temp(ctx, "scale", [1]));
  const moving = { rows, width, decay, eps };
  const wide = { WG: rowWorkgroup(ctx.gpu, width) };
  ctx.r.dispatch(adafactorColumns, {
    bind: { grad: g, step: storageOf(step), columns },
    params: moving,
    grid: [Math.ceil(width / 64), 1, 1],
  });
  ctx.r.dispatch(adafactorRows, {
    variant: wide,
    bind: { grad: g, step: storageOf(step), columns, moments, share },
    params: moving,
    grid: foldGrid(rows),
  });
  ctx.r.dispatch(adafactorScale, {
    variant: { WG: rowWorkgroup(ctx.gpu, rows) },
    bind: { moments, share, scale },
    params: { rows, width, lr, clip },
    grid: [1, 1, 1],
  });
  ctx.r.dispatch(adafactorStep, {
    bind: { grad: g, moments, columns, scale, param: storageOf(param) },
    params: { n: rows * width, width },
    grid: elementGrid(rows * width),
  });
}
