/** Splits a matrix by columns and rows, GPT-2's fused projection above all, and joins rows again. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { copyColumnsKernel } from "../kernels/columns.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";
import { passGrad } from "./elementwise.ts";

/**
 * x [R, Σ widths] → one [R, width] each. Backward writes the parts' gradients side by side; x may not be used
 * elsewhere.
 */
export function splitColumns(ctx: Ctx, x: Tensor, widths: readonly number[]): Tensor[] {
  const { rows, cols } = matrixOf(x);
  if (widths.reduce((a, b) => a + b, 0) !== cols) {
    throw new GpuError(`Cannot split ${describe(x)} into columns ${widths.join(" + ")}`);
  }
  return splitBlocks(ctx, x, [rows], widths)[0];
}

/**
 * x [Σ heights, Σ widths] → by height and width a block [height, width] each. Backward writes the blocks' gradients
 * to their places; x may not be used elsewhere.
 */
export function splitBlocks(
  ctx: Ctx,
  x: Tensor,
  heights: readonly number[],
  widths: readonly number[],
): Tensor[][] {
  const { rows, cols } = matrixOf(x);
  if (heights.reduce((a, b) => a + b, 0) !== rows || widths.reduce((a, b) => a + b, 0) !== cols) {
    throw new GpuError(
      `Cannot split ${describe(x)} into blocks of ${heights.join(" + ")} rows and ${
        widths.join(" + ")
      } columns`,
    );
  }
  let row = 0;
  const blocks = heights.map((height) => {
    let col = 0;
    return widths.map((width, i) => {
      const block = temp(ctx, `${x.label} part ${i}`, [height, width]);
      const offset = row * cols + col;
      copyColumns(ctx, height, width, { t: x, ld: cols, offset }, { t: block, ld: width, offset: 0 });
      col += width;
      if (i === widths.length - 1) row += height;
      return { block, height, width, offset };
    });
  });
  const { tape } = ctx;
  if (tape?.needs(x)) {
    const all = blocks.flat();
    // One closure for all blocks: whatever uses them comes after all of them.
    all.slice(1).forEach(({ block }) => tape.push(block, () => {}));
    tape.push(all[0].block, () => {
      const grads = all.map(({ block }) => tape.grad(block));
      if (grads.some((g) => !g)) throw new GpuError(`A part of ${describe(x)} has no gradient`);
      const { grad, accumulate } = gradTarget(ctx, x);
      if (accumulate) throw new GpuError(`${describe(x)} was split and used elsewhere`);
      all.forEach(({ height, width, offset }, i) =>
        copyColumns(ctx, height, width, { t: grads[i]!, ld: width, offset: 0 }, { t: grad, ld: cols, offset })
      );
    });
  }
  return blocks.map((line) => line.map(({ block }) => block));
}

/** Matrices of one width under each other: [heights, width] → [Σ heights, width]. Gradients to all. */
export function joinRows(ctx: Ctx, parts: readonly Tensor[]): Tensor {
  const heights = parts.map((part) => matrixOf(part).rows), { cols } = matrixOf(parts[0]);
  if (parts.some((part) => matrixOf(part).cols !== cols)) {
    throw new GpuError(`Cannot join ${parts.map(describe).join(" and ")}: their widths differ`);
  }
  const y = temp(ctx, `joined ${parts[0].label}`, [heights.reduce((a, b) => a + b, 0), cols]);
  const offsets = heights.map((_, i) => cols * heights.slice(0, i).reduce((a, b) => a + b, 0));
  const move = (i: number, whole: Tensor, part: Tensor, back: boolean) => {
    const [a, b] = [{ t: part, ld: cols, offset: 0 }, { t: whole, ld: cols, offset: offsets[i] }];
    copyColumns(ctx, heights[i], cols, back ? b : a, back ? a : b);
  };
  parts.forEach((part, i) => move(i, y, part, false));
  const { tape } = ctx;
  if (tape?.needs(...parts)) {
    tape.push(y, () => {
      const dy = tape.grad(y);
      if (!dy) return;
      parts.forEach((part, i) => {
        if (!tape.needs(part)) return;
        const grad = temp(ctx, `d ${part.label}`, part.shape);
        move(i, dy, grad, true);
        passGrad(ctx, part, grad);
      });
    });
  }
  return y;
}

/** Rows `[first, first + count)` of x as a matrix of their own. Outside the tape. */
export function rowRange(ctx: Ctx, x: Tensor, first: number, count: number): Tensor {
  const { cols } = matrixOf(x);
  const part = temp(ctx, `rows of ${x.label}`, [count, cols]);
  copyColumns(ctx, count, cols, { t: x, ld: cols, offset: first * cols }, { t: part, ld: cols, offset: 0 });
  return part;
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
