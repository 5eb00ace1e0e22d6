/** Greedy choice: the most likely token of each row. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { rowArgmax } from "../kernels/argmax.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/**
 * into[r] = the index of the largest element of logits[r], the lowest among equals; logits [R, V],
 * into u32 [R]. NaN never wins; a row of NaN gives 0. No gradient.
 * @throws {GpuError} when `into` has not one u32 a row
 */
export function argmaxRows(ctx: Ctx, logits: Tensor, into: Tensor): void {
  const { rows, cols: width } = matrixOf(logits);
  if (into.dtype !== "u32" || into.shape[0] !== rows) {
    throw new GpuError(
      `Cannot store the argmax of ${describe(logits)} in ${describe(into)}: u32 [${rows}] fits`,
    );
  }
  ctx.r.dispatch(rowArgmax, {
    variant: { WG: rowWorkgroup(ctx.gpu, width) },
    bind: { x: storageOf(logits), y: storageOf(into) },
    params: { rows, width },
    grid: foldGrid(rows),
  });
}
