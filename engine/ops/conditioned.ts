/**
 * The ops of networks that read an edit as a text and gate its gradient by what they read (De Cao et al. 2021;
 * memory-and-meta guide sections 3.2 to 3.4): an LSTM's step, weight normalisation, and products by group.
 */
import { GpuError } from "../gpu/errors.ts";
import {
  groupProductBackwardKernel,
  groupProductKernel,
  lstmOutputBackwardKernel,
  lstmOutputKernel,
  lstmStateBackwardKernel,
  lstmStateKernel,
  sigmoidGainKernel,
  softmaxRowsKernel,
  tanhKernel,
  weightNormBackwardKernel,
  weightNormKernel,
} from "../kernels/conditioned.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, temp } from "./context.ts";
import { passGrad } from "./elementwise.ts";

type Grid = [number, number, number];

const byElement = (n: number): Grid => [Math.ceil(n / 64), 1, 1];

/** State and output of an LSTM, [rows, width] each. */
export interface LstmState {
  c: Tensor;
  h: Tensor;
}

/**
 * One step: gates z [rows, 4·width] in the order i, f, g, o, live u32 [rows]: rows with 0 keep what they have.
 * Gradients to z and to both parts of the state before. Kept for backward: z, the states before, and c.
 */
export function lstmStep(ctx: Ctx, z: Tensor, before: LstmState, live: Tensor): LstmState {
  const { cols: width } = matrixOf(before.c), n = sizeOf(before.c.shape);
  if (sizeOf(z.shape) !== 4 * n || sizeOf(before.h.shape) !== n) {
    throw new GpuError(`Gates ${describe(z)} do not fit ${describe(before.c)}`);
  }
  const [c, h] = ["c", "h"].map((name) => temp(ctx, `LSTM ${name}`, before.c.shape));
  const rest = { params: { n, width }, grid: byElement(n) };
  const given = { z: storageOf(z), live: storageOf(live) };
  ctx.r.dispatch(lstmStateKernel, {
    ...rest,
    bind: { ...given, before: storageOf(before.c), c: storageOf(c) },
  });
  ctx.r.dispatch(lstmOutputKernel, {
    ...rest,
    bind: { ...given, c: storageOf(c), before: storageOf(before.h), h: storageOf(h) },
  });
  const { tape } = ctx;
  if (tape?.needs(z, before.c, before.h)) {
    tape.push(c, () => {
      const dc = tape.grad(c);
      if (!dc) return;
      const [dz, dbefore] = [z, before.c].map((t) => temp(ctx, `d ${t.label}`, t.shape));
      const into = { dc: storageOf(dc), dz: storageOf(dz), dbefore: storageOf(dbefore) };
      ctx.r.dispatch(lstmStateBackwardKernel, {
        ...rest,
        bind: { ...given, before: storageOf(before.c), ...into },
      });
      passGrad(ctx, z, dz);
      passGrad(ctx, before.c, dbefore);
    });
    tape.push(h, () => {
      const dh = tape.grad(h);
      if (!dh) return;
      const [dz, dc, dbefore] = [z, c, before.h].map((t) => temp(ctx, `d ${t.label}`, t.shape));
      const into = {
        dh: storageOf(dh),
        dz: storageOf(dz),
        dc: storageOf(dc),
        dbefore: storageOf(dbefore),
      };
      ctx.r.dispatch(lstmOutputBackwardKernel, { ...rest, bind: { ...given, c: storageOf(c), ...into } });
      passGrad(ctx, z, dz);
      passGrad(ctx, c, dc);
      passGrad(ctx, before.h, dbefore);
    });
  }
  return { c, h };
}

/** tanh(x) of each element. Kept for backward: the result. */
export function tanh(ctx: Ctx, x: Tensor): Tensor {
  const n = sizeOf(x.shape);
  const y = temp(ctx, `tanh of ${x.label}`, x.shape);
  const run = (BACK: boolean, from: Tensor, dy: Tensor, to: Tensor) =>
    ctx.r.dispatch(tanhKernel, {
      variant: { BACK },
      bind: { x: storageOf(from), dy: storageOf(dy), y: storageOf(to) },
      params: { n },
      grid: byElement(n),
    });
  run(false, x, x, y);
  backThrough(ctx, x, y, (dy, dx) => run(true, y, dy, dx));
  return y;
}

/** softmax of each row of x [rows, width]. Kept for backward: the result. */
export function softmaxRows(ctx: Ctx, x: Tensor): Tensor {
  const { rows, cols: width } = matrixOf(x);
  const y = temp(ctx, `softmax of ${x.label}`, x.shape);
  const run = (BACK: boolean, from: Tensor, dy: Tensor, to: Tensor) =>
    ctx.r.dispatch(softmaxRowsKernel, {
      variant: { BACK, WG: rowWorkgroup(ctx.gpu, width) },
      bind: { x: storageOf(from), dy: storageOf(dy), y: storageOf(to) },
      params: { width },
      grid: [rows, 1, 1],
    });
  run(false, x, x, y);
  backThrough(ctx, x, y, (dy, dx) => run(true, y, dy, dx));
  return y;
}

/** Pushes a backward step that makes all of x's gradient from y's. */
function backThrough(ctx: Ctx, x: Tensor, y: Tensor, back: (dy: Tensor, dx: Tensor) => void): void {
  const { tape } = ctx;
  if (!tape?.needs(x)) return;
  tape.push(y, () => {
    const dy = tape.grad(y);
    if (!dy) return;
    const dx = temp(ctx, `d ${x.label}`, x.shape);
    back(dy, dx);
    passGrad(ctx, x, dx);
  });
}

/** w[r] = g[r] v[r]/‖v[r]‖ of v [rows, width] and g [rows]. Gradients to both, which are kept. */
export function weightNorm(ctx: Ctx, v: Tensor, g: Tensor): Tensor {
  const { rows, cols: width } = matrixOf(v);
  if (sizeOf(g.shape) !== rows) throw new GpuError(`${describe(g)} are no gains of ${describe(v)}`);
  const w = temp(ctx, `normalised ${v.label}`, v.shape);
  const given = { v: storageOf(v), g: storageOf(g) };
  const rest = {
    variant: { WG: rowWorkgroup(ctx.gpu, width) },
    params: { width },
    grid: [rows, 1, 1] as Grid,
  };
  ctx.r.dispatch(weightNormKernel, { ...rest, bind: { ...given, w: storageOf(w) } });
  const { tape } = ctx;
  if (tape?.needs(v, g)) {
    tape.push(w, () => {
      const dw = tape.grad(w);
      if (!dw) return;
      const [dv, dg] = [v, g].map((t) => temp(ctx, `d ${t.label}`, t.shape));
      const into = { dw: storageOf(dw), dv: storageOf(dv), dg: storageOf(dg) };
      ctx.r.dispatch(weightNormBackwardKernel, { ...rest, bind: { ...given, ...into } });
      passGrad(ctx, v, dv);
      passGrad(ctx, g, dg);
    });
  }
  return w;
}

/**
 * x[r] ⊙ s[group[r]]: x [rows, width], s [groups, width], group u32 [rows] → [rows, width]. Gradient to s; x is a
 * constant, and kept.
 */
export function groupProduct(ctx: Ctx, x: Tensor, s: Tensor, group: Tensor): Tensor {
  const { rows, cols: width } = matrixOf(x);
  if (matrixOf(s).cols !== width || group.shape[0] !== rows) {
    throw new GpuError(`${describe(s)} are no factors of ${describe(x)}`);
  }
  const n = rows * width, size = sizeOf(s.shape);
  const y = temp(ctx, `gated ${x.label}`, x.shape);
  ctx.r.dispatch(groupProductKernel, {
    bind: { x: storageOf(x), s: storageOf(s), group: storageOf(group), y: storageOf(y) },
    params: { n, width },
    grid: byElement(n),
  });
  backThrough(ctx, s, y, (dy, ds) =>
    ctx.r.dispatch(groupProductBackwardKernel, {
      bind: { dy: storageOf(dy), x: storageOf(x), group: storageOf(group), ds: storageOf(ds) },
      params: { n: size, rows, width },
      grid: byElement(size),
    }));
  return y;
}

/** alpha·σ(e[r])·x[r] of x [rows, width] and e [rows]. Gradients to both, which are kept. */
export function sigmoidGain(ctx: Ctx, x: Tensor, e: Tensor, alpha: number): Tensor {
  const { rows, cols: width } = matrixOf(x);
  if (sizeOf(e.shape) !== rows) throw new GpuError(`${describe(e)} are no gains of ${describe(x)}`);
  const y = temp(ctx, `scaled ${x.label}`, x.shape), unused = temp(ctx, "unused", e.shape);
  const run = (BACK: boolean, dy: Tensor, to: Tensor, de: Tensor) =>
    ctx.r.dispatch(sigmoidGainKernel, {
      variant: { BACK, WG: rowWorkgroup(ctx.gpu, width) },
      bind: {
        ...{ x: storageOf(x), e: storageOf(e), dy: storageOf(dy) },
        ...{ y: storageOf(to), de: storageOf(de) },
      },
      params: { width, alpha },
      grid: [rows, 1, 1],
    });
  run(false, x, y, unused);
  const { tape } = ctx;
  if (tape?.needs(x, e)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      const [dx, de] = [x, e].map((t) => temp(ctx, `d ${t.label}`, t.shape));
      run(true, dy, dx, de);
      passGrad(ctx, x, dx);
      passGrad(ctx, e, de);
    });
  }
  return y;
}
