/** Means over runs of rows: texts of a batch, for example. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { segmentMeanKernel } from "../kernels/segments.ts";
import { describe, matrixOf, sizeOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/**
 * into[s] = mean of the rows offsets[s] … offsets[s + 1] − 1 of x [rows, width]; offsets u32 [segments + 1],
 * into [segments, width]. Outside the tape.
 * @throws {GpuError} when the shapes do not fit
 */
export function segmentMean(ctx: Ctx, x: Tensor, offsets: Tensor, into: Tensor): void {
  const { rows: segments, cols: width } = matrixOf(into);
  if (matrixOf(x).cols !== width || offsets.shape[0] !== segments + 1) {
    throw new GpuError(`Cannot average ${describe(x)} by ${describe(offsets)} into ${describe(into)}`);
  }
  ctx.r.dispatch(segmentMeanKernel, {
    bind: { x: storageOf(x), offsets: storageOf(offsets), y: storageOf(into) },
    params: { segments, width },
    grid: foldGrid(Math.ceil(sizeOf(into.shape) / 64)),
  });
}

/** Where runs of the given lengths begin, and where the last one ends. */
export function offsetsOf(lengths: readonly number[]): Uint32Array {
  const offsets = new Uint32Array(lengths.length + 1);
  lengths.forEach((length, i) => offsets[i + 1] = offsets[i] + length);
  return offsets;
}
