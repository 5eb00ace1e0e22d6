/**
 * What every op gets: the recorder, and the tape when somebody wants gradients. The tape is a list of
 * backward closures pushed while recording; `backward` runs them in reverse into the same plan.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { Storage } from "../gpu/memory.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { elementGrid, scaled } from "../kernels/elementwise.ts";
import { describe, sizeOf, storageOf, tempTensor, type Tensor } from "../tensor/tensor.ts";

/**
 * The tape: which tensors need gradients, which gradients exist so far, and how to go back.
 *
 * Several tensors may share one gradient buffer (`add` passes its own on to both terms). The tape knows who
 * holds which, so that nobody adds to a buffer that another still has to read.
 */
export class Tape {
  #needs = new Set<Tensor>();
  #grads = new Map<Tensor, Tensor>();
  #into = new Set<Tensor>();
  #holders = new Map<Storage, Set<Tensor>>();
  #pending = new Map<Tensor, number>();
  #back: { out?: Tensor; back: () => void }[] = [];

  /** Asks for the gradient of a tensor. With `into` it is added to that (zeroed by the caller). */
  require(t: Tensor, into?: Tensor): void {
    this.#needs.add(t);
    if (!into) return;
    this.setGrad(t, into);
    this.#into.add(t);
  }

  /** Does anything downstream of these tensors need recording? */
  needs(...tensors: (Tensor | undefined)[]): boolean {
    return tensors.some((t) => t !== undefined && this.#needs.has(t));
  }

  /** Marks an op's output as part of the graph and remembers how to go back through it. */
  push(out: Tensor, back: () => void): void {
    this.#needs.add(out);
    this.#pending.set(out, (this.#pending.get(out) ?? 0) + 1);
    this.#back.push({ out, back });
  }

  /** Remembers a backward step whose outputs were marked by {@link require}. */
  defer(back: () => void): void {
    this.#back.push({ back });
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
    this.#letGo(t);
    this.#grads.set(t, grad);
    const { storage } = grad.shards[0];
    const holders = this.#holders.get(storage) ?? new Set();
    this.#holders.set(storage, holders.add(t));
  }

  /** May the gradient of `t` be added to in place? Not while others hold it, nor if it came from outside. */
  ownsGrad(t: Tensor): boolean {
    const { storage } = this.#grads.get(t)!.shards[0];
    return this.#holders.get(storage)!.size === 1 && (storage.kind === "virtual" || this.#into.has(t));
  }

  /** Runs the backward closures, last first. */
  backward(): void {
    while (this.#back.length) {
      const { out, back } = this.#back.pop()!;
      back();
      if (!out) continue;
      const left = this.#pending.get(out)! - 1;
      this.#pending.set(out, left);
      if (left === 0 && !this.#into.has(out)) this.#letGo(out);
    }
  }

  #letGo(t: Tensor): void {
    const grad = this.#grads.get(t);
    if (grad) this.#holders.get(grad.shards[0].storage)!.delete(t);
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
 * Where a gradient contribution to `t` goes: a new temporary to write, or the existing one to add to (a copy
 * of it when others hold it too). The op's backward passes `accumulate` on to its kernel.
 */
export function gradTarget(ctx: Ctx, t: Tensor): { grad: Tensor; accumulate: boolean } {
  const tape = ctx.tape!;
  const existing = tape.grad(t);
  if (existing && tape.ownsGrad(t)) return { grad: existing, accumulate: true };
  const grad = temp(ctx, `d ${t.label}`, t.shape);
  if (existing) {
    const n = sizeOf(t.shape);
    const bind = { x: storageOf(existing), y: storageOf(grad) };
    ctx.r.dispatch(scaled, { bind, params: { n, alpha: 1 }, grid: elementGrid(n) });
  }
  tape.setGrad(t, grad);
  return { grad, accumulate: existing !== undefined };
}
