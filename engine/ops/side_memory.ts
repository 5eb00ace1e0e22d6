/** What a side memory is chosen by: how far it moves a map's output, text by text. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import {
  activatedDistances,
  activatedDistancesToDelta,
  largestAboveThreshold,
  spanScoresForward,
  spanScoresToRows,
} from "../kernels/lookup.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Activation } from "./activation.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** An output of a linear map and what a side memory adds to it. */
export interface Moved {
  /** o, with the residual in it where there is one, [R, W]. */
  y: Tensor;
  residual?: Tensor;
  /** δ, [R, W] */
  delta: Tensor;
  /** φ */
  kind: Activation;
}

/**
 * ‖φ(o + δ) − φ(o)‖ of each row: column `column` of `into` [R, n], or of a new tensor [R, 1]. Gradient to δ, for a
 * new tensor.
 * @throws {GpuError} when the sizes do not fit
 */
export function activatedDistance(
  ctx: Ctx,
  { y, residual, delta, kind }: Moved,
  into?: { d: Tensor; column: number },
): Tensor {
  const { rows, cols: width } = matrixOf(delta);
  const { d, column } = into ?? { d: temp(ctx, `distance of ${delta.label}`, [rows, 1]), column: 0 };
  if (matrixOf(y).rows !== rows || matrixOf(y).cols !== width || matrixOf(d).rows !== rows) {
    throw new GpuError(`Cannot measure ${describe(delta)} beside ${describe(y)} into ${describe(d)}`);
  }
  const n = matrixOf(d).cols;
  const params = { rows, width, n, column };
  const RESIDUAL = residual !== undefined;
  // Without a residual y stands in for the binding.
  const inputs = { y: storageOf(y), residual: storageOf(residual ?? y), delta: storageOf(delta) };
  ctx.r.dispatch(activatedDistances, {
    variant: { kind, RESIDUAL, WG: rowWorkgroup(ctx.gpu, width) },
    bind: { ...inputs, d: storageOf(d) },
    params,
    grid: foldGrid(rows),
  });
  const { tape } = ctx;
  if (into || !tape?.needs(delta)) return d;
  tape.push(d, () => {
    const dd = tape.grad(d);
    if (!dd) return;
    const { grad, accumulate: ACC } = gradTarget(ctx, delta);
    ctx.r.dispatch(activatedDistancesToDelta, {
      variant: { kind, RESIDUAL, ACC },
      bind: { ...inputs, d: storageOf(d), dd: storageOf(dd), ddelta: storageOf(grad) },
      params,
      grid: elementGrid(rows * width),
    });
  });
  return d;
}

/** Where texts lie in a batch of rows; see PromptRows. */
export interface Spans {
  /** u32 [S, 4] */
  spans: Tensor;
  /** u32 [R] */
  sequence: Tensor;
}

/**
 * The mean of d [R, n] over each text's rows → [S, n]; the maximum of texts with more than `most` rows. Gradient to
 * d without `most`, for texts whose rows are one run.
 */
export function spanScores(ctx: Ctx, d: Tensor, { spans, sequence }: Spans, most?: number): Tensor {
  const { rows, cols: n } = matrixOf(d);
  const [count] = spans.shape;
  const score = temp(ctx, `scores of ${d.label}`, n === 1 ? [count] : [count, n]);
  ctx.r.dispatch(spanScoresForward, {
    bind: { d: storageOf(d), spans: storageOf(spans), score: storageOf(score) },
    params: { count, n, most: most ?? 0xffffffff },
    grid: [Math.ceil(count * n / 64), 1, 1],
  });
  const { tape } = ctx;
  if (most !== undefined || !tape?.needs(d)) return score;
  tape.push(score, () => {
    const dscore = tape.grad(score);
    if (!dscore) return;
    const { grad, accumulate: ACC } = gradTarget(ctx, d);
    ctx.r.dispatch(spanScoresToRows, {
      variant: { ACC },
      bind: {
        dscore: storageOf(dscore),
        spans: storageOf(spans),
        sequence: storageOf(sequence),
        dd: storageOf(grad),
      },
      params: { rows, n },
      grid: [Math.ceil(rows * n / 64), 1, 1],
    });
  });
  return score;
}

/**
 * into[s] = the entry with the largest score among those that reach their threshold, the lowest among equals, else
 * NO_ENTRY; score [S, n] (or [S] with one entry), threshold [n], into u32 [S]. Outside the tape.
 * @throws {GpuError} when the sizes do not fit
 */
export function largestAbove(ctx: Ctx, score: Tensor, threshold: Tensor, into: Tensor): void {
  const [count, n = 1] = score.shape;
  if (threshold.shape[0] !== n || into.shape[0] !== count || into.dtype !== "u32") {
    throw new GpuError(
      `Cannot choose by ${describe(score)} and ${describe(threshold)} into ${describe(into)}`,
    );
  }
  const bind = { score: storageOf(score), threshold: storageOf(threshold), choice: storageOf(into) };
  ctx.r.dispatch(largestAboveThreshold, {
    bind,
    params: { count, n },
    grid: [Math.ceil(count / 64), 1, 1],
  });
}
