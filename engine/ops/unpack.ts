/** Stored weights as f32. */
import { GpuError } from "../gpu/errors.ts";
import { elementGrid, unpackWeights } from "../kernels/elementwise.ts";
import { describe, matrixOf, sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/**
 * into (+)= x element by element; x of any weight dtype, into f32, each in row shards of its own. Outside the
 * tape.
 * @throws {GpuError} when the sizes differ
 */
export function unpack(ctx: Ctx, x: Tensor, into: Tensor, { accumulate: ACC = false } = {}): void {
  if (sizeOf(x.shape) !== sizeOf(into.shape)) {
    throw new GpuError(`Cannot unpack ${describe(x)} into ${describe(into)}: their sizes differ`);
  }
  const { cols } = matrixOf(x);
  for (const from of x.shards) {
    for (const to of into.shards) {
      const start = Math.max(from.row, to.row);
      const rows = Math.min(from.row + from.rows, to.row + to.rows) - start;
      if (rows <= 0) continue;
      const n = rows * cols;
      ctx.r.dispatch(unpackWeights, {
        variant: { dtype: x.dtype, ACC },
        bind: { x: from.storage, y: to.storage },
        params: { n, first: (start - from.row) * cols, to: (start - to.row) * cols },
        grid: elementGrid(n),
      });
    }
  }
}
