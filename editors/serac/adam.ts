/**
 * Adam over the parameters of one training, on the device. A value that is not finite closes a gate before anything
 * learns from it: numbers stay as the last good step left them, and the clock tells which one that was.
 */
import type { Gpu } from "../../engine/gpu/device.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import { checkFinite } from "../../engine/ops/elementwise.ts";
import { adam, advance, clipByGlobalNorm, globalNorm } from "../../engine/ops/optim.ts";
import { createTensor, freeTensor, storageOf, type Tensor } from "../../engine/tensor/tensor.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";

/** The parameters with their moments and the number of steps. */
export interface Optimiser extends Disposable {
  readonly parameters: readonly Tensor[];
  /** Moments and clock by name: with the parameters, what training goes on from. */
  readonly state: ReadonlyMap<string, Tensor>;
  /** Asks the tape for the gradients of all parameters. */
  require(ctx: Ctx): void;
  /** Records a step from the gradients that the tape has gathered, clipped to a norm together where one is given. */
  step(ctx: Ctx, loss: Tensor, lr: number, clip?: number): void;
  /**
   * Reads the loss of the last step and, where one met a value that is not finite, which step that was, counted
   * from 1, and which value. Waits once.
   */
  look(loss: Tensor): Promise<{ loss: number; stopped?: { step: number; why: string } }>;
}

/** What may be not finite, in the order in which a step meets it. */
const CAUSES = ["its loss", "its gradient"];

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
  const clock = own("clock", [1], "u32"), bad = own("bad", [1], "u32");
  return {
    parameters,
    state: new Map([...moments.flatMap(({ m, v }) => [m, v]), clock].map((t) => [t.label, t])),
    require: ({ tape }) => parameters.forEach((param) => tape!.require(param)),
    step(ctx, loss, lr, clip) {
      const grads = parameters.map((param) => ctx.tape!.grad(param)!);
      const norm = clip === undefined ? temp(ctx, "global norm", [1]) : clipByGlobalNorm(ctx, grads, clip);
      if (clip === undefined) globalNorm(ctx, grads, norm);
      [loss, norm].forEach((t, cause) => checkFinite(ctx, t, bad, 1 + cause));
      ctx.r.gated(storageOf(bad), () => {
        advance(ctx, clock);
        moments.forEach(({ param, m, v }, i) => adam(ctx, { param, grad: grads[i], m, v, step: clock, lr }));
      });
    },
    async look(t) {
      const [[loss], [steps], [cause]] = await readTensors(gpu, t, clock, bad);
      return { loss, ...cause > 0 && { stopped: { step: steps + 1, why: CAUSES[cause - 1] } } };
    },
    [Symbol.dispose]: () => owned.dispose(),
  };
}
