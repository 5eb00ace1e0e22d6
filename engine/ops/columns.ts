/** Splits a matrix by columns: GPT-2's fused projection into queries, keys and values. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { copyColumnsKernel } from "../kernels/columns.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/**
 * x [R, Σ widths] → one [R, width] each. Backward writes the parts' gradients side by side; x may not be used
 * elsewhere.
 */
export function splitColumns(ctx: Ctx, x: Tensor, widths: readonly number[]): Tensor[] {
  const { rows, cols } = matrixOf(x);
  if (widths.reduce((a, b) => a + b, 0) !== cols) {
    throw new GpuError(`Cannot split ${describe(x)} into columns ${widths.join(" + ")}`);
  }
  let offset = 0;
  const parts = widths.map((width, i) => {
    const part = temp(ctx, `${x.label} part ${i}`, [rows, width]);
    copyColumns(ctx, rows, width, { t: x, ld: cols, offset }, { t: part, ld: width, offset: 0 });
    offset += width;
    return part;
  });
  const { tape } = ctx;
  if (tape?.needs(x)) {
    // One closure for all parts: they are ready together, because one op (attention) consumes them.
    parts.slice(1).forEach((part) => tape.push(part, () => {}));
    tape.push(parts[0], () => {
      const grads = parts.map((part) => tape.grad(part));
      if (grads.some((g) => !g)) throw new GpuError(`A part of ${describe(x)} has no gradient`);
      const { grad, accumulate } = gradTarget(ctx, x);
      if (accumulate) throw new GpuError(`${describe(x)} was split and used elsewhere`);
      let at = 0;
      widths.forEach((width, i) => {
        copyColumns(ctx, rows, width, { t: grads[i]!, ld: width, offset: 0 }, {
          t: grad,
          ld: cols,
          offset: at,
        });
        at += width;
      });
    });
  }
  return parts;
}

interface Side {
  t: Tensor;
  ld: number;
  offset: number;
}

function copyColumns(ctx: Ctx, rows: number, cols: number, from: Side, to: Side): void {
  const grid = foldGrid(Math.ceil(rows * cols / 64));
  ctx.r.dispatch(copyColumnsKernel, {
    bind: { source: storageOf(from.t), to: storageOf(to.t) },
    params: {
      rows,
      cols,
      fromLd: from.ld,
      fromOffset: from.offset,
      toLd: to.ld,
      toOffset: to.offset,
      gridX: grid[0],
    },
    grid,
  });
}
