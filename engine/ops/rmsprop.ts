/**
 * Centred RMSprop (Graves 2013, "Generating sequences with recurrent neural networks", equations 38 to 45), as PyTorch
 * has it with `centered`: no momentum. All state stays on the device.
 */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { rmspropStep } from "../kernels/rmsprop.ts";
import { describe, sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";
import { eachShard } from "./elementwise.ts";

/** A parameter, its gradient, and the gradient's running mean and variance, zero at the start; f32 of one shape. */
export interface RmspropOptions {
  param: Tensor;
  grad: Tensor;
  mean: Tensor;
  variance: Tensor;
  lr: number;
  /** What mean and variance keep of themselves. */
  decay?: number;
  eps?: number;
  /** No element of the parameter becomes smaller. Default: no limit. */
  floor?: number;
}

/** One step. @throws {GpuError} where the sizes differ */
export function rmsprop(ctx: Ctx, options: RmspropOptions): void {
  const { param, grad, mean, variance, lr, decay = 0.99, eps = 1e-8, floor = -3e38 } = options;
  for (const t of [grad, mean, variance]) {
    if (sizeOf(t.shape) !== sizeOf(param.shape)) {
      throw new GpuError(`Cannot step ${describe(param)} with ${describe(t)}: their sizes differ`);
    }
  }
  eachShard([param, grad, mean, variance], ([theta, g, m, v], n) => {
    ctx.r.dispatch(rmspropStep, {
      bind: { grad: g.storage, param: theta.storage, mean: m.storage, variance: v.storage },
      params: { n, lr, keep: decay, rest: 1 - decay, eps, floor },
      grid: elementGrid(n),
    });
  });
}
