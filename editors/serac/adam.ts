/** Adam over the parameters of one training, on the device. */
import type { Gpu } from "../../engine/gpu/device.ts";
import type { Ctx } from "../../engine/ops/context.ts";
import { adam, advance, clipByGlobalNorm } from "../../engine/ops/optim.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";

/** The parameters with their moments and the number of steps. */
export interface Optimiser extends Disposable {
  /** Asks the tape for the gradients of all parameters. */
  require(ctx: Ctx): void;
  /** Records a step from the gradients that the tape has gathered, clipped to a norm together where one is given. */
  step(ctx: Ctx, lr: number, clip?: number): void;
}

export function optimiser(gpu: Gpu, parameters: readonly Tensor[]): Optimiser {
  const owned = new DisposableStack();
  const own = (label: string, shape: readonly number[], dtype: "f32" | "u32" = "f32") =>
    owned.adopt(
      createTensor(gpu, label, [...shape], { dtype, owner: "training" }),
      (t) => freeTensor(gpu, t),
    );
  const moments = parameters.map((param) => ({
    param,
    m: own(`m of ${param.label}`, param.shape),
    v: own(`v of ${param.label}`, param.shape),
  }));
  const step = own("clock", [1], "u32");
  return {
    require: ({ tape }) => parameters.forEach((param) => tape!.require(param)),
    step(ctx, lr, clip) {
      const grads = parameters.map((param) => ctx.tape!.grad(param)!);
      if (clip !== undefined) clipByGlobalNorm(ctx, grads, clip);
      advance(ctx, step);
      moments.forEach(({ param, m, v }, i) => adam(ctx, { param, grad: grads[i], m, v, step, lr }));
    },
    [Symbol.dispose]: () => owned.dispose(),
  };
}
