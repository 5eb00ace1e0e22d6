/**
 * Optimisers and constraints. All state (step, moments, norms) stays on the device, so that an optimisation
 * loop is one replayed plan.
 */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import {
  adamStep,
  advanceStep,
  ballProjection,
  clipToNorm,
  keepBestRows,
  linfProjection,
  maskedDescent,
  rootOfSum,
  rowNormPenalty,
  squareSums,
} from "../kernels/optim.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, temp } from "./context.ts";
import { addScaled, eachShard } from "./elementwise.ts";

/** One parameter of {@link adam}; param, grad, m and v are f32 of one shape, m and v zero at the start. */
export interface AdamOptions {
  param: Tensor;
  grad: Tensor;
  m: Tensor;
  v: Tensor;
  /** The clock, u32 [1]: 1 in the first step, see {@link advance}. */
  step: Tensor;
  lr: number;
  beta1?: number;
  beta2?: number;
  eps?: number;
  /** Decoupled (AdamW): the parameter is first multiplied by 1 − lr·weightDecay. */
  weightDecay?: number;
  /** u32 [rows]: rows whose word is 0 are left alone, moments included. */
  active?: Tensor;
}

/** One step of Adam (Kingma and Ba 2015) as PyTorch computes it: bias correction, eps outside the root. */
export function adam(ctx: Ctx, options: AdamOptions): void {
  const { param, grad, m, v, step, lr, active } = options;
  const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0 } = options;
  for (const t of [grad, m, v]) {
    if (sizeOf(t.shape) !== sizeOf(param.shape)) {
      throw new GpuError(`Cannot step ${describe(param)} with ${describe(t)}: their sizes differ`);
    }
  }
  const { rows, cols: width } = matrixOf(param);
  requireRows(active, param, rows);
  eachShard([param, grad, m, v], (shards, n) => {
    const [theta, g, first, second] = shards.map((s) => s.storage);
    ctx.r.dispatch(adamStep, {
      variant: { ROWS: active !== undefined },
      bind: {
        grad: g,
        step: storageOf(step),
        rows_on: storageOf(active ?? step),
        param: theta,
        m: first,
        v: second,
      },
      params: {
        n,
        width,
        first: shards[0].row,
        lr,
        c1: 1 - beta1,
        c2: 1 - beta2,
        log_beta1: Math.log(beta1),
        log_beta2: Math.log(beta2),
        eps,
        keep: 1 - lr * weightDecay,
      },
      grid: elementGrid(n),
    });
  });
}

/** Advances the clock u32 [1] of {@link adam}: once a step, before it. */
export function advance(ctx: Ctx, step: Tensor): void {
  ctx.r.dispatch(advanceStep, { bind: { step: storageOf(step) }, grid: [1, 1, 1] });
}

/** One step of plain gradient descent: param −= lr·grad. */
export function sgd(ctx: Ctx, { param, grad, lr }: { param: Tensor; grad: Tensor; lr: number }): void {
  addScaled(ctx, grad, param, -lr, true);
}

/** Workgroups that share one shard's sum of squares: enough to fill a GPU, few enough to add up at once. */
const MOST_PARTIAL_SUMS = 256;
/** Elements below which one more workgroup is not worth its start. */
const ELEMENTS_PER_PARTIAL_SUM = 4096;

/** into f32 [1] = √Σ x² over all elements of all tensors. */
export function globalNorm(ctx: Ctx, tensors: Tensor[], into: Tensor): void {
  const parts: { storage: Tensor["shards"][number]["storage"]; n: number; groups: number }[] = [];
  for (const t of tensors) {
    eachShard([t], ([{ storage }], n) => {
      const groups = Math.min(MOST_PARTIAL_SUMS, Math.ceil(n / ELEMENTS_PER_PARTIAL_SUM));
      parts.push({ storage, n, groups });
    });
  }
  const count = parts.reduce((sum, { groups }) => sum + groups, 0);
  const sums = temp(ctx, "square sums", [count]);
  const variant = { WG: rowWorkgroup(ctx.gpu, ELEMENTS_PER_PARTIAL_SUM) };
  let offset = 0;
  for (const { storage, n, groups } of parts) {
    const bind = { x: storage, sums: storageOf(sums) };
    ctx.r.dispatch(squareSums, { variant, bind, params: { n, offset }, grid: [groups, 1, 1] });
    offset += groups;
  }
  const bind = { sums: storageOf(sums), norm: storageOf(into) };
  ctx.r.dispatch(rootOfSum, { variant, bind, params: { n: count }, grid: [1, 1, 1] });
}

/**
 * Scales all gradients by min(1, maxNorm/(norm + 1e-6)), norm the {@link globalNorm} of all of them, like
 * PyTorch's clip_grad_norm_. Returns the norm before clipping, f32 [1].
 */
export function clipByGlobalNorm(ctx: Ctx, grads: Tensor[], maxNorm: number): Tensor {
  const norm = temp(ctx, "global norm", [1]);
  globalNorm(ctx, grads, norm);
  for (const grad of grads) {
    eachShard([grad], ([{ storage }], n) => {
      const bind = { norm: storageOf(norm), grad: storage };
      ctx.r.dispatch(clipToNorm, { bind, params: { n, limit: maxNorm }, grid: elementGrid(n) });
    });
  }
  return norm;
}

/** Clamps every element of param f32 to base ± radius; base of the same shape, of any weight dtype. */
export function projectLinf(ctx: Ctx, param: Tensor, base: Tensor, radius: number): void {
  if (sizeOf(param.shape) !== sizeOf(base.shape)) {
    throw new GpuError(`Cannot keep ${describe(param)} near ${describe(base)}: their sizes differ`);
  }
  eachShard([param, base], ([theta, center], n) => {
    const bind = { base: center.storage, param: theta.storage };
    const variant = { dtype: base.dtype };
    ctx.r.dispatch(linfProjection, { variant, bind, params: { n, radius }, grid: elementGrid(n) });
  });
}

/** What {@link normPenalty} adds to; all f32. */
export interface NormPenalty {
  /** [E, D], one vector a row. */
  delta: Tensor;
  /** [E] */
  coefficient: Tensor;
  /** [E], added to. */
  loss: Tensor;
  /** [E, D], the gradient of the loss, added to. */
  grad: Tensor;
}

/** loss[e] += c[e]·‖δ[e]‖₂ and grad[e] += c[e]·δ[e]/‖δ[e]‖₂, which is 0 at δ = 0. */
export function normPenalty(ctx: Ctx, { delta, coefficient, loss, grad }: NormPenalty): void {
  const { rows, cols: width } = matrixOf(delta);
  requireRows(coefficient, delta, rows);
  requireRows(loss, delta, rows);
  ctx.r.dispatch(rowNormPenalty, {
    variant: { WG: rowWorkgroup(ctx.gpu, width) },
    bind: {
      delta: storageOf(delta),
      coefficient: storageOf(coefficient),
      loss: storageOf(loss),
      grad: storageOf(grad),
    },
    params: { rows, width },
    grid: foldGrid(rows),
  });
}

/**
 * δ[e] ← δ[e]·r[e]/‖δ[e]‖₂ where ‖δ[e]‖₂ > r[e]; delta [E, D], radius f32 [E]. With `active` u32 [E], rows
 * whose word is 0 are left alone.
 */
export function projectBall(ctx: Ctx, delta: Tensor, radius: Tensor, active?: Tensor): void {
  const { rows, cols: width } = matrixOf(delta);
  requireRows(radius, delta, rows);
  requireRows(active, delta, rows);
  ctx.r.dispatch(ballProjection, {
    variant: { ROWS: active !== undefined, WG: rowWorkgroup(ctx.gpu, width) },
    bind: {
      radius: storageOf(radius),
      rows_on: storageOf(active ?? radius),
      delta: storageOf(delta),
    },
    params: { rows, width },
    grid: foldGrid(rows),
  });
}

function requireRows(t: Tensor | undefined, of: Tensor, rows: number): void {
  if (t && sizeOf(t.shape) !== rows) {
    throw new GpuError(`${describe(t)} does not fit the rows of ${describe(of)}: [${rows}] does`);
  }
}

/**
 * Keeps the best rows so far: where loss[r] < best[r], best[r] becomes loss[r] and kept[r] becomes x[r]; x and
 * kept [R, W], loss and best [R]. Fill best with a large number first.
 * @throws {GpuError} when the sizes do not fit
 */
export function keepBest(ctx: Ctx, loss: Tensor, x: Tensor, best: Tensor, kept: Tensor): void {
  const { rows, cols: width } = matrixOf(x);
  if (sizeOf(kept.shape) !== rows * width || loss.shape[0] !== rows || best.shape[0] !== rows) {
    throw new GpuError(
      `Cannot keep the best rows of ${describe(x)} by ${describe(loss)} in ${describe(kept)}`,
    );
  }
  ctx.r.dispatch(keepBestRows, {
    variant: { WG: rowWorkgroup(ctx.gpu, width) },
    bind: { loss: storageOf(loss), x: storageOf(x), best: storageOf(best), kept: storageOf(kept) },
    params: { rows, width },
    grid: foldGrid(rows),
  });
}

/** What {@link maskedStep} moves. */
export interface MaskedStep {
  /** The change of a matrix, f32, in place. */
  param: Tensor;
  grad: Tensor;
  /** The matrix, in any weight dtype. */
  base: Tensor;
  lr: number;
  /** L2 of base + param, in the mask only. */
  decay: number;
  /** No element of the change becomes larger. Default: no limit. */
  bound?: number;
  /** The mask has element i where the i-th number of `seededRandom(seed)` is below `share`. */
  mask: { seed: number; share: number };
}

/**
 * One step of gradient descent on base + param within a random mask; elements outside it keep their bits.
 * @throws {GpuError} when the sizes differ
 */
export function maskedStep(ctx: Ctx, { param, grad, base, lr, decay, bound = 3e38, mask }: MaskedStep): void {
  for (const t of [grad, base]) {
    if (sizeOf(t.shape) !== sizeOf(param.shape)) {
      throw new GpuError(`Cannot step ${describe(param)} with ${describe(t)}: their sizes differ`);
    }
  }
  const { cols } = matrixOf(param);
  const limit = Math.min(0xffffffff, Math.floor(mask.share * 2 ** 32));
  eachShard([param, grad, base], ([theta, g, w], n) => {
    ctx.r.dispatch(maskedDescent, {
      variant: { dtype: base.dtype },
      bind: { grad: g.storage, base: w.storage, param: theta.storage },
      params: { n, first: theta.row * cols, seed: mask.seed >>> 0, limit, lr, decay, bound },
      grid: elementGrid(n),
    });
  });
}
