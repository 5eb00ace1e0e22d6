/**
 * Pruning while training: how much each parameter matters, and a schedule that zeroes what matters least
 * (Molchanov et al. 2019; smoothed and with its uncertainty in AdaLoRA, Zhang et al. 2023, section 3.2).
 */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { keepLargestKernel, sensitivityKernel } from "../kernels/training.ts";
import { describe, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/** Smoothed sensitivity of a parameter and its uncertainty; f32 of the parameter's shape, zero at the start. */
export interface Sensitivity {
  mean: Tensor;
  spread: Tensor;
}

/** One step of s = |θ·∂L/∂θ|, its running mean (β1) and the running mean of |s − mean| (β2). */
export function trackSensitivity(
  ctx: Ctx,
  { param, grad, beta1, beta2 }: { param: Tensor; grad: Tensor; beta1: number; beta2: number },
  { mean, spread }: Sensitivity,
): void {
  const n = sizeOf(param.shape);
  for (const t of [grad, mean, spread]) {
    if (sizeOf(t.shape) !== n) {
      throw new GpuError(`Cannot weigh ${describe(param)} by ${describe(t)}: their sizes differ`);
    }
  }
  const bind = {
    param: storageOf(param),
    grad: storageOf(grad),
    mean: storageOf(mean),
    spread: storageOf(spread),
  };
  ctx.r.dispatch(sensitivityKernel, { bind, params: { n, beta1, beta2 }, grid: elementGrid(n) });
}

/** In {@link KeepLargest.cuts}: zero again what was zeroed last time. */
export const AGAIN = 0xffffffff;

/** What {@link keepLargest} works on. */
export interface KeepLargest {
  /** f32 [n] */
  scores: Tensor;
  /** f32 [n], pruned in place. */
  values: Tensor;
  /** u32 [n]: 1 for values that stay; all 1 at the start. */
  kept: Tensor;
  /** u32 [steps]: how many values go after each step; 0 leaves all as they are, {@link AGAIN} repeats. */
  cuts: Tensor;
  /** u32 [1]: 1 in the first step, see `advance`. */
  clock: Tensor;
}

/** Zeroes the `cuts[clock − 1]` values with the least scores, and those whose score equals the last of them. */
export function keepLargest(ctx: Ctx, { scores, values, kept, cuts, clock }: KeepLargest): void {
  const n = sizeOf(values.shape);
  for (const t of [scores, kept]) {
    if (sizeOf(t.shape) !== n) throw new GpuError(`Cannot prune ${describe(values)} by ${describe(t)}`);
  }
  const bind = {
    scores: storageOf(scores),
    cuts: storageOf(cuts),
    clock: storageOf(clock),
    kept: storageOf(kept),
    values: storageOf(values),
  };
  const params = { n, steps: sizeOf(cuts.shape) };
  ctx.r.dispatch(keepLargestKernel, { bind, params, grid: [Math.ceil(n / 64), 1, 1] });
}
