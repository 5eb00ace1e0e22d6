/**
 * What every op gets: the recorder, and the tape when somebody wants gradients. The tape is a list of
 * backward closures pushed while recording; `backward` runs them in reverse into the same plan.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { describe, sizeOf, type Tensor, tempTensor } from "../tensor/tensor.ts";

/** The tape: which tensors need gradients, which gradients exist so far, and how to go back. */
export class Tape {
  #needs = new Set<Tensor>();
  #grads = new Map<Tensor, Tensor>();
  #back: (() => void)[] = [];

  /** Asks for the gradient of a tensor. With `into` it is added to that (zeroed by the caller). */
  require(t: Tensor, into?: Tensor): void {
    this.#needs.add(t);
    if (into) this.#grads.set(t, into);
  }

  /** Does anything downstream of these tensors need recording? */
  needs(...tensors: (Tensor | undefined)[]): boolean {
    return tensors.some((t) => t !== undefined && this.#needs.has(t));
  }

  /** Marks an op's output as part of the graph and remembers how to go back through it. */
  push(out: Tensor, back: () => void): void {
    this.#needs.add(out);
    this.#back.push(back);
  }

  /** Remembers a backward step whose outputs were marked by {@link require}. */
  defer(back: () => void): void {
    this.#back.push(back);
  }

  /** The gradient gathered so far, if any. */
  grad(t: Tensor): Tensor | undefined {
    return this.#grads.get(t);
  }

  /** Sets a gradient that nothing has contributed to yet (an alias of another is allowed, see `add`). */
  setGrad(t: Tensor, grad: Tensor): void {
    if (sizeOf(grad.shape) !== sizeOf(t.shape)) {
      throw new GpuError(`The gradient ${describe(grad)} does not fit ${describe(t)}`);
    }
    this.#grads.set(t, grad);
  }

  /** Runs the backward closures, last first. */
  backward(): void {
    while (this.#back.length) this.#back.pop()!();
  }
}

/** Passed as the first argument of every op. */
export interface Ctx {
  readonly gpu: Gpu;
  readonly r: Recorder;
  readonly tape?: Tape;
}

/** A temporary in the context's plan. */
export function temp(ctx: Ctx, label: string, shape: readonly number[], dtype?: Tensor["dtype"]): Tensor {
  return tempTensor(ctx.r, label, shape, dtype);
}

/**
 * Where a gradient contribution to `t` goes: a new temporary to write, or the existing one to add to.
 * The op's backward passes `accumulate` on to its kernel.
 */
export function gradTarget(ctx: Ctx, t: Tensor): { grad: Tensor; accumulate: boolean } {
  const existing = ctx.tape!.grad(t);
  if (existing) return { grad: existing, accumulate: true };
  const grad = temp(ctx, `d ${t.label}`, t.shape);
  ctx.tape!.setGrad(t, grad);
  return { grad, accumulate: false };
}
