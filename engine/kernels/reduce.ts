/** What kernels with one workgroup a row share: sums over it and the choice of workgroup size. */
import reduceSource from "../../shaders/lib/reduce.wgsl" with { type: "text" };
import rowSource from "../../shaders/lib/row.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/device.ts";

/** WGSL of `reduce_sum(lane, value)`; needs the constant WG. */
export const reduce = reduceSource;

/** WGSL of `row_of(wg)` and `row_mean(lane, sum)` with {@link reduce} before it; needs rows and width. */
export const row = `${reduceSource}\n${rowSource}`;

/** Allowed values of the variant WG. */
export const ROW_WORKGROUPS = [64, 8, 256] as const;

/**
 * Invocations a row of `width` elements: one subgroup on software drivers, whose workgroups run on one
 * thread anyway; on GPUs enough to hide the latency of a long row.
 */
export function rowWorkgroup(gpu: Gpu, width: number): number {
  if (gpu.class === "cpu") return 8;
  return width >= 2048 ? 256 : 64;
}
