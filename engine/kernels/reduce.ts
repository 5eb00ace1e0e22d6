/** What kernels with one workgroup a row share: the workgroup sum and the choice of workgroup size. */
import reduceSource from "../../shaders/lib/reduce.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/device.ts";

/** WGSL of `reduce_sum(lane, value)`; needs the variant constant WG. */
export const reduce = reduceSource;

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
