/** The sum of a second moment: products are made in f32 by the matrix product and added here in two floats. */
import eft from "../../shaders/lib/eft.wgsl" with { type: "text" };
import source from "../../shaders/linalg/add_two_float.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { foldGrid, type Grid } from "../gpu/recorder.ts";

/** (c, lo) += x [rows, width] on a block of a panel that starts at element `at`; all multiples of 4 but n. */
export const addTwoFloat = defineKernel({
  name: "add_two_float",
  source,
  bindings: {
    x: "read vec4<f32>",
    c: "update vec4<f32>",
    lo: "update vec4<f32>",
    zero: "read u32",
  },
  params: { rows: "u32", width: "u32", n: "u32", at: "u32", ld: "u32" },
  snippets: () => [eft],
});

/** The grid of {@link addTwoFloat}: 64 times four elements a workgroup. */
export function addTwoFloatGrid(rows: number, width: number): Grid {
  return foldGrid(Math.ceil(rows * width / 256));
}
