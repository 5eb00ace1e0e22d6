/** Checksums of tensors as they are stored: what proves that weights are the same bit for bit. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { CHECKSUM_WORDS, checksumKernel } from "../kernels/checksum.ts";
import { bytesOf, describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

/**
 * Adds the two 32-bit sums of a tensor's bits to row `slot` of sums u32 [slots, 2], zeroed by the caller. They
 * depend on each bit and its place, not on row shards nor on what follows the tensor in its buffers. Any dtype.
 * @throws {GpuError} when there is no such row
 */
export function checksum(ctx: Ctx, t: Tensor, sums: Tensor, slot: number): void {
  if (sums.dtype !== "u32" || sums.shape[1] !== 2 || slot >= sums.shape[0]) {
    throw new GpuError(`Cannot add the checksum of ${describe(t)} to row ${slot} of ${describe(sums)}`);
  }
  const rowBytes = matrixOf(t).cols * bytesOf(t.dtype);
  for (const { storage, row, rows } of t.shards) {
    const bytes = rows * rowBytes;
    const words = Math.ceil(bytes / 4);
    ctx.r.dispatch(checksumKernel, {
      bind: { words: storage, sums: storageOf(sums) },
      // Shards have an even number of rows, so each starts with a whole word.
      params: { words, lastMask: bytes % 4 === 2 ? 0xffff : 0xffffffff, first: row * rowBytes / 4, slot },
      grid: foldGrid(Math.ceil(words / CHECKSUM_WORDS)),
    });
  }
}
