/**
 * Kernels of the least-squares solver that see a rectangular matrix: how large its columns are, copies in
 * other orientations and precisions, and the two products of a residual.
 */
import eft from "../../shaders/lib/eft.wgsl" with { type: "text" };
import copySource from "../../shaders/linalg/column_copy.wgsl" with { type: "text" };
import peaksSource from "../../shaders/linalg/column_peaks.wgsl" with { type: "text" };
import subtractSource from "../../shaders/linalg/subtract_product.wgsl" with { type: "text" };
import subtractTwoFloat from "../../shaders/linalg/subtract_product_two_float.wgsl" with { type: "text" };
import { defineKernel, type Kernel } from "../gpu/kernel.ts";
import { type Load, precision, type Real } from "./linalg.ts";

function peaks(real: Real): Kernel {
  return defineKernel({
    name: `column_peaks_${real}`,
    source: peaksSource,
    bindings: { a: `read ${real}`, y: "update u32" },
    params: { rows: "u32", cols: "u32" },
    ...precision(real),
  });
}

/** Largest magnitude of every column, as f32 bits. Grid [columns / 64, 1, 1]. */
export const columnPeaks: Record<Real, Kernel> = { f32: peaks("f32"), f64: peaks("f64") };

function copier(src: Real, real: Real): Kernel {
  return defineKernel({
    name: `column_copy_${src}_${real}`,
    source: copySource,
    bindings: { src: `read ${src}`, scale: "read f32", y: `write ${real}` },
    params: {
      rows: "u32",
      cols: "u32",
      width: "u32",
      srcOffset: "u32",
      srcRow: "u32",
      srcCol: "u32",
      yOffset: "u32",
      yRow: "u32",
      yCol: "u32",
    },
    ...precision(real),
  });
}

/** Copies a rectangle with scaled columns; an invocation an element, 64 a workgroup, folded. */
export const columnCopy: Record<Load, Kernel> = {
  "f32→f32": copier("f32", "f32"),
  "f32→f64": copier("f32", "f64"),
  "f64→f64": copier("f64", "f64"),
};

const productParams = {
  m: "u32",
  count: "u32",
  K: "u32",
  rowStride: "u32",
  stepStride: "u32",
  xFirst: "u32",
  yFirst: "u32",
} as const;

/** Y -= A X in f64; an invocation an element of Y, 64 a workgroup, folded. */
export const subtractProduct = defineKernel({
  name: "subtract_product",
  source: subtractSource,
  bindings: { a: "read f64", x: "read f64", y: "update f64" },
  params: productParams,
  features: () => ["shader-f64"],
});

/** Y -= A X in two-float numbers, on the same grid. */
export const subtractProductTwoFloat = defineKernel({
  name: "subtract_product_two_float",
  source: subtractTwoFloat,
  bindings: {
    a: "read f32",
    lo: "read f32",
    x: "read vec2<f32>",
    y: "update vec2<f32>",
    zero: "read u32",
  },
  params: productParams,
  variants: { LO: [false, true] },
  snippets: () => [eft],
});
