/** The loss of SERAC's scope classifier (Mitchell et al. 2022, "Memory-based model editing at scale"). */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { scopeLossBackward, scopeLossKernel } from "../kernels/scope.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** Pairs of embeddings; which are of one fact (u32, 1), and what each pair's loss is multiplied by (f32). */
export interface ScopePairs {
  /** [pairs, width] */
  a: Tensor;
  /** [pairs, width] */
  b: Tensor;
  positive: Tensor;
  weights: Tensor;
}

/**
 * loss [pairs] with D = ‖a − b‖²: w·D for a positive pair, −w·log(1 − e^−D) for another, D at least 1e-6.
 * Gradients to a and b, also when only one asks. Kept for backward: a, b and D.
 * @throws {GpuError} when the shapes do not fit
 */
export function scopeLoss(ctx: Ctx, { a, b, positive, weights }: ScopePairs): Tensor {
  const { rows: pairs, cols: width } = matrixOf(a);
  const other = matrixOf(b);
  if (
    other.rows !== pairs || other.cols !== width || positive.shape[0] !== pairs || weights.shape[0] !== pairs
  ) {
    throw new GpuError(`Cannot compare ${describe(a)} with ${describe(b)} by ${describe(positive)}`);
  }
  const loss = temp(ctx, "scope losses", [pairs]);
  const distance = temp(ctx, "distances", [pairs]);
  const given = {
    a: storageOf(a),
    b: storageOf(b),
    positive: storageOf(positive),
    weights: storageOf(weights),
    distance: storageOf(distance),
  };
  ctx.r.dispatch(scopeLossKernel, {
    bind: { ...given, loss: storageOf(loss) },
    params: { pairs, width },
    grid: [Math.ceil(pairs / 64), 1, 1],
  });
  const { tape } = ctx;
  if (tape?.needs(a, b)) {
    tape.push(loss, () => {
      const dloss = tape.grad(loss);
      if (!dloss) return;
      const toA = gradTarget(ctx, a), toB = gradTarget(ctx, b);
      ctx.r.dispatch(scopeLossBackward, {
        variant: { ACC_A: toA.accumulate, ACC_B: toB.accumulate },
        bind: { ...given, dloss: storageOf(dloss), da: storageOf(toA.grad), db: storageOf(toB.grad) },
        params: { pairs, width },
        grid: elementGrid(pairs * width),
      });
    });
  }
  return loss;
}
