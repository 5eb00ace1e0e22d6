/**
 * Low-rank changes of a linear map whose factors are activations, as networks make them from gradients:
 *
 *   y' = y + Σ_b values_b (keys_b · x)      over the b of the row's own group
 *
 * so that many differently edited models run in one batch of rows and ΔW is never built (memory-and-meta guide
 * section 2.7).
 */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { maskGroupsKernel } from "../kernels/hyper.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { passGrad } from "./elementwise.ts";
import { matmul } from "./matmul.ts";

/** ΔW = Σ_b values_b keys_bᵀ of one map, each b for the rows of its group. */
export interface RowFactors {
  /** [B, in] */
  readonly keys: Tensor;
  /** [B, out] */
  readonly values: Tensor;
  /** u32 [B] */
  readonly groups: Tensor;
}

/**
 * y + Σ values_b (keys_b · x) over the b of each row's group; x [R, in], y [R, out], rowGroups u32 [R] → [R, out].
 * Gradients to x, y, keys and values. Kept for backward: x and the masked products, [R, B].
 * @throws {GpuError} when the factors do not fit
 */
export function addFactored(ctx: Ctx, x: Tensor, y: Tensor, factors: RowFactors, rowGroups: Tensor): Tensor {
  const { keys, values } = factors;
  const { rows, cols: inner } = matrixOf(x);
  const { rows: B, cols } = matrixOf(keys);
  const fits = cols === inner && matrixOf(values).rows === B && matrixOf(values).cols === matrixOf(y).cols &&
    factors.groups.shape[0] === B && rowGroups.shape[0] === rows && matrixOf(y).rows === rows;
  if (!fits) {
    throw new GpuError(
      `Cannot change ${describe(y)} of ${describe(x)} by ${describe(keys)} and ${describe(values)}`,
    );
  }
  const t = temp(ctx, `products with ${keys.label}`, [rows, B]);
  matmul(ctx, "nt", x, keys, t);
  mask(ctx, t, rowGroups, factors.groups);
  const out = temp(ctx, `changed ${y.label}`, y.shape);
  matmul(ctx, "nn", t, values, out, { residual: y });
  const { tape } = ctx;
  if (tape?.needs(x, y, keys, values)) {
    tape.push(out, () => {
      const dout = tape.grad(out);
      if (!dout) return;
      if (tape.needs(values)) {
        const { grad, accumulate } = gradTarget(ctx, values);
        matmul(ctx, "tn", t, dout, grad, { accumulate });
      }
      if (tape.needs(x, keys)) {
        const dt = temp(ctx, `d ${t.label}`, t.shape);
        matmul(ctx, "nt", dout, values, dt);
        mask(ctx, dt, rowGroups, factors.groups);
        if (tape.needs(keys)) {
          const { grad, accumulate } = gradTarget(ctx, keys);
          matmul(ctx, "tn", dt, x, grad, { accumulate });
        }
        if (tape.needs(x)) {
          const { grad, accumulate } = gradTarget(ctx, x);
          matmul(ctx, "nn", dt, keys, grad, { accumulate });
        }
      }
      passGrad(ctx, y, dout);
    });
  }
  return out;
}

function mask(ctx: Ctx, t: Tensor, rowGroups: Tensor, keyGroups: Tensor): void {
  const n = sizeOf(t.shape);
  ctx.r.dispatch(maskGroupsKernel, {
    bind: { row_group: storageOf(rowGroups), key_group: storageOf(keyGroups), t: storageOf(t) },
    params: { n, keys: matrixOf(t).cols },
    grid: elementGrid(n),
  });
}
