/** Sampling without the host: a token of each row, drawn from its likeliest ones. */
import { GpuError } from "../gpu/errors.ts";
import { foldGrid } from "../gpu/recorder.ts";
import { rowWorkgroup } from "../kernels/reduce.ts";
import { MAX_TOP_K, sampleTopKKernel } from "../kernels/sample.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import type { Ctx } from "./context.ts";

export { MAX_TOP_K };

/** How {@link sampleTopK} draws. */
export interface TopKDraw {
  /** 1 … {@link MAX_TOP_K}; more than the vocabulary is all of it. */
  k: number;
  /** Above 0. */
  temperature: number;
  /** Of the k, the likeliest that together reach this share of their probability. Default 1. */
  topP?: number;
  /** f32 [steps, R] in [0, 1]: a random number for each draw. */
  uniforms: Tensor;
  /** u32 [R]: the position of each row's last token … */
  positions: Tensor;
  /** … and of its first new one, u32 [R]: the difference says which step a row is at. */
  start: Tensor;
}

/**
 * into[r] = a token drawn from the k likeliest of logits [R, V], into u32 [R]; equal logits count by their
 * index, NaN never. Greedy as the temperature goes to 0. No gradient.
 * @throws {GpuError} when k is out of range, or a tensor has not one entry a row
 */
export function sampleTopK(ctx: Ctx, logits: Tensor, draw: TopKDraw, into: Tensor): void {
  const { rows, cols: width } = matrixOf(logits);
  const { k, temperature, topP = 1, uniforms, positions, start } = draw;
  if (!Number.isInteger(k) || k < 1 || k > MAX_TOP_K) {
    throw new GpuError(`Cannot draw from the ${k} likeliest tokens: 1 to ${MAX_TOP_K} are possible`);
  }
  const fits = [positions, start, into].every((t) => t.dtype === "u32" && t.shape[0] === rows);
  if (!fits || uniforms.shape[1] !== rows) {
    throw new GpuError(
      `Cannot draw from ${describe(logits)} into ${describe(into)} with ${describe(uniforms)}: ` +
        `${rows} rows are needed`,
    );
  }
  ctx.r.dispatch(sampleTopKKernel, {
    variant: { WG: rowWorkgroup(ctx.gpu, width) },
    bind: {
      logits: storageOf(logits),
      uniforms: storageOf(uniforms),
      positions: storageOf(positions),
      start: storageOf(start),
      y: storageOf(into),
    },
    params: {
      ...{ rows, width, k, steps: uniforms.shape[0], share: topP },
      // The largest that still is a number times the difference of two equal logits.
      sharpness: Math.min(1 / temperature, 1e38),
    },
    grid: foldGrid(rows),
  });
}
