/** Activations, plain and gated. */
import { GpuError } from "../gpu/errors.ts";
import {
  activationForward,
  type ACTIVATIONS,
  activationToInput,
  gatedForward,
  gatedToInputs,
} from "../kernels/activation.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { describe, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** `gelu_new` is the tanh form, `gelu` the one with erf, `quick_gelu` x·σ(1.702 x), `silu` x·σ(x). */
export type Activation = (typeof ACTIVATIONS)[number];

/** y = f(x), elementwise, any shape. Gradient to x. Kept for backward: x. */
export function activation(ctx: Ctx, x: Tensor, kind: Activation): Tensor {
  const n = sizeOf(x.shape);
  const grid = elementGrid(n);
  const y = temp(ctx, `${kind} ${x.label}`, x.shape);
  const bind = { x: storageOf(x), y: storageOf(y) };
  ctx.r.dispatch(activationForward, { variant: { kind }, bind, params: { n }, grid });
  if (ctx.tape?.needs(x)) {
    ctx.tape.push(y, () => {
      const dy = ctx.tape!.grad(y);
      if (!dy) return;
      const { grad, accumulate: ACC } = gradTarget(ctx, x);
      const bind = { x: storageOf(x), dy: storageOf(dy), dx: storageOf(grad) };
      ctx.r.dispatch(activationToInput, { variant: { kind, ACC }, bind, params: { n }, grid });
    });
  }
  return y;
}

/**
 * y = f(gate)·up, elementwise, equal shapes: SwiGLU and its kin (Shazeer 2020). Gradients to both, also when
 * only one asks. Kept for backward: gate and up.
 * @throws {GpuError} when the sizes differ
 */
export function gated(ctx: Ctx, gate: Tensor, up: Tensor, kind: Activation): Tensor {
  const n = sizeOf(gate.shape);
  if (sizeOf(up.shape) !== n) {
    throw new GpuError(`Cannot gate ${describe(up)} by ${describe(gate)}: their sizes differ`);
  }
  const grid = elementGrid(n);
  const y = temp(ctx, `${kind} ${gate.label}`, gate.shape);
  const inputs = { z: storageOf(gate), up: storageOf(up) };
  ctx.r.dispatch(gatedForward, {
    variant: { kind },
    bind: { ...inputs, y: storageOf(y) },
    params: { n },
    grid,
  });
  if (ctx.tape?.needs(gate, up)) {
    ctx.tape.push(y, () => {
      const dy = ctx.tape!.grad(y);
      if (!dy) return;
      const toGate = gradTarget(ctx, gate);
      const toUp = gradTarget(ctx, up);
      ctx.r.dispatch(gatedToInputs, {
        variant: { kind, ACC_GATE: toGate.accumulate, ACC_UP: toUp.accumulate },
        bind: { ...inputs, dy: storageOf(dy), dz: storageOf(toGate.grad), dup: storageOf(toUp.grad) },
        params: { n },
        grid,
      });
    });
  }
  return y;
}
