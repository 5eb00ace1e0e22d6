/** Elementwise sums, copies and fills; how gradients are passed on without arithmetic. */
import { GpuError } from "../gpu/errors.ts";
import {
  addElements,
  elementGrid,
  fillWords,
  finiteCheck,
  multiplyElements,
  scaled,
} from "../kernels/elementwise.ts";
import { bytesOf, describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/**
 * y = a + b, equal sizes. Gradients to both: they share y's gradient as long as nothing else contributes.
 * @throws {GpuError} when the sizes differ
 */
export function add(ctx: Ctx, a: Tensor, b: Tensor): Tensor {
  const n = sameSize("add", a, b);
  const y = temp(ctx, `${a.label} + ${b.label}`, a.shape);
  const bind = { a: storageOf(a), b: storageOf(b), y: storageOf(y) };
  ctx.r.dispatch(addElements, { bind, params: { n }, grid: elementGrid(n) });
  if (ctx.tape?.needs(a, b)) {
    ctx.tape.push(y, () => {
      const dy = ctx.tape!.grad(y);
      if (!dy) return;
      for (const t of [a, b]) passGrad(ctx, t, dy);
    });
  }
  return y;
}

/** y = factor·x. Gradient to x. */
export function scale(ctx: Ctx, x: Tensor, factor: number): Tensor {
  const y = temp(ctx, `scaled ${x.label}`, x.shape);
  addScaled(ctx, x, y, factor, false);
  if (ctx.tape?.needs(x)) {
    ctx.tape.push(y, () => {
      const dy = ctx.tape!.grad(y);
      if (!dy) return;
      const { grad, accumulate } = gradTarget(ctx, x);
      addScaled(ctx, dy, grad, factor, accumulate);
    });
  }
  return y;
}

/**
 * y = a·b elementwise, equal sizes. Gradients to both. Kept for backward: a and b.
 * @throws {GpuError} when the sizes differ
 */
export function multiply(ctx: Ctx, a: Tensor, b: Tensor): Tensor {
  const n = sameSize("multiply", a, b);
  const y = temp(ctx, `${a.label} · ${b.label}`, a.shape);
  const into = (left: Tensor, right: Tensor, y: Tensor, ACC: boolean) => {
    const bind = { a: storageOf(left), b: storageOf(right), y: storageOf(y) };
    ctx.r.dispatch(multiplyElements, { variant: { ACC }, bind, params: { n }, grid: elementGrid(n) });
  };
  into(a, b, y, false);
  const { tape } = ctx;
  if (tape?.needs(a, b)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      for (const [t, other] of [[a, b], [b, a]]) {
        if (!tape.needs(t)) continue;
        const { grad, accumulate } = gradTarget(ctx, t);
        into(dy, other, grad, accumulate);
      }
    });
  }
  return y;
}

/**
 * Backward of ops whose gradient to `t` is `grad` itself: `t` shares the buffer when it has no gradient yet,
 * otherwise the values are added. Does nothing when `t` needs no gradient.
 */
export function passGrad(ctx: Ctx, t: Tensor, grad: Tensor): void {
  const tape = ctx.tape!;
  if (!tape.needs(t)) return;
  if (tape.grad(t)) addScaled(ctx, grad, gradTarget(ctx, t).grad, 1, true);
  else tape.setGrad(t, grad);
}

/** into += x, in place, equal sizes; outside the tape. @throws {GpuError} when the sizes differ */
export function addInto(ctx: Ctx, x: Tensor, into: Tensor): void {
  addScaled(ctx, x, into, 1, true);
}

/** into = x, outside the tape; `into` may outlive the plan. @throws {GpuError} when the sizes differ */
export function copy(ctx: Ctx, x: Tensor, into: Tensor): void {
  addScaled(ctx, x, into, 1, false);
}

/** into = factor·x, or into += factor·x; outside the tape. @throws {GpuError} when the sizes differ */
export function addScaled(ctx: Ctx, x: Tensor, into: Tensor, factor: number, ACC: boolean): void {
  sameSize("copy or add", x, into);
  eachShard([x, into], ([from, to], n) => {
    const bind = { x: from.storage, y: to.storage };
    ctx.r.dispatch(scaled, { variant: { ACC }, bind, params: { n, alpha: factor }, grid: elementGrid(n) });
  });
}

/** Sets every element of an f32 or u32 tensor. @throws {GpuError} for another dtype */
export function fill(ctx: Ctx, t: Tensor, value: number): void {
  if (bytesOf(t.dtype) !== 4) {
    throw new GpuError(`Cannot fill ${describe(t)} of dtype ${t.dtype}: f32 or u32 fit`);
  }
  const bits = t.dtype === "u32" ? value : new Uint32Array(new Float32Array([value]).buffer)[0];
  eachShard([t], ([{ storage }], n) => {
    ctx.r.dispatch(fillWords, { bind: { y: storage }, params: { n, bits }, grid: elementGrid(n) });
  });
}

/**
 * Writes `code` (not 0) into `flag` u32 [1] when the f32 tensor t holds a NaN or an infinity and the flag is
 * still 0: the first offender of a plan wins. Tests bits, as compilers fold comparisons with NaN.
 */
export function checkFinite(ctx: Ctx, t: Tensor, flag: Tensor, code: number): void {
  eachShard([t], ([{ storage }], n) => {
    const bind = { x: storage, flag: storageOf(flag) };
    ctx.r.dispatch(finiteCheck, { bind, params: { n, code }, grid: elementGrid(n) });
  });
}

/**
 * Calls `visit` for each row shard of tensors of one shape, with the number of its elements.
 * @throws {GpuError} when they are sharded differently
 */
export function eachShard(
  tensors: Tensor[],
  visit: (shards: Tensor["shards"][number][], n: number) => void,
): void {
  const [first, ...others] = tensors;
  first.shards.forEach((shard, i) => {
    const shards = others.map((t) => {
      const fits = t.shards.length === first.shards.length &&
        (first.shards.length === 1 || t.shards[i].rows === shard.rows);
      if (!fits) throw new GpuError(`The row shards of ${describe(first)} and ${describe(t)} differ`);
      return t.shards[i];
    });
    const n = first.shards.length === 1 ? sizeOf(first.shape) : shard.rows * matrixOf(first).cols;
    visit([shard, ...shards], n);
  });
}

function sameSize(verb: string, a: Tensor, b: Tensor): number {
  const n = sizeOf(a.shape);
  if (sizeOf(b.shape) !== n) {
    throw new GpuError(`Cannot ${verb} ${describe(a)} and ${describe(b)}: their sizes differ`);
  }
  return n;
}
