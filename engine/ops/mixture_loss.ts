/** The loss of SERAC's soft weighting (Mitchell et al. 2022, the released code without supervision; EasyEdit). */
import { GpuError } from "../gpu/errors.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { mixtureLossBackward, mixtureLossKernel } from "../kernels/scope.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** Two models' words, and how much each counts. */
export interface Mixture {
  /** Log-probabilities of the base, [rows, vocab]; a constant. */
  base: Tensor;
  /** Logits of the counterfactual model, [rows, vocab]. */
  z: Tensor;
  /** [rows]: D of each row; the counterfactual model counts s = e^−D. */
  distance: Tensor;
  /** u32 [rows]: the wanted token; ignored in KL rows. */
  targets: Tensor;
  /** f32 [rows]: what each loss is multiplied by. */
  weights: Tensor;
  /** The rows from here on are KL rows. */
  klStart: number;
}

/**
 * loss [rows] with m = (1 − s)·p_base + s·softmax(z) + ε: w·(−log m[target]), in KL rows w·KL(p_base ‖ m), m
 * divided by its sum. Gradients to z and distance, also when only one asks.
 * @throws {GpuError} when the shapes do not fit
 */
export function mixtureLoss(ctx: Ctx, mixture: Mixture): Tensor {
  const { base, z, distance, targets, weights, klStart } = mixture;
  const { rows, cols: width } = matrixOf(z);
  const fits = [distance, targets, weights].every(({ shape }) => shape[0] === rows);
  if (!fits || matrixOf(base).rows !== rows || matrixOf(base).cols !== width) {
    throw new GpuError(`Cannot mix ${describe(z)} with ${describe(base)} by ${describe(distance)}`);
  }
  const loss = temp(ctx, "mixture losses", [rows]);
  const state = temp(ctx, "mixture state", [rows, 5]);
  const shared = { base: storageOf(base), z: storageOf(z), distance: storageOf(distance) };
  const WG = rowWorkgroup(ctx.gpu, width);
  const params = { rows, width, klStart };
  const grid: [number, number, number] = [Math.min(rows, 65535), Math.ceil(rows / 65535), 1];
  ctx.r.dispatch(mixtureLossKernel, {
    variant: { WG },
    bind: {
      ...shared,
      targets: storageOf(targets),
      weights: storageOf(weights),
      loss: storageOf(loss),
      state: storageOf(state),
    },
    params,
    grid,
  });
  const { tape } = ctx;
  if (tape?.needs(z, distance)) {
    tape.push(loss, () => {
      const dloss = tape.grad(loss);
      if (!dloss) return;
      const toZ = gradTarget(ctx, z), toD = gradTarget(ctx, distance);
      ctx.r.dispatch(mixtureLossBackward, {
        variant: { ACC_Z: toZ.accumulate, ACC_D: toD.accumulate, WG },
        bind: {
          ...shared,
          state: storageOf(state),
          dloss: storageOf(dloss),
          dz: storageOf(toZ.grad),
          ddistance: storageOf(toD.grad),
        },
        params,
        grid,
      });
    });
  }
  return loss;
}
