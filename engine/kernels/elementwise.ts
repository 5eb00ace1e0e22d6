/** Elementwise kernels: 256 elements a workgroup. */
import addSource from "../../shaders/elementwise/add.wgsl" with { type: "text" };
import checkFiniteSource from "../../shaders/elementwise/check_finite.wgsl" with { type: "text" };
import fillSource from "../../shaders/elementwise/fill.wgsl" with { type: "text" };
import scaledSource from "../../shaders/elementwise/scaled.wgsl" with { type: "text" };
import unpackSource from "../../shaders/elementwise/unpack.wgsl" with { type: "text" };
import multiplySource from "../../shaders/elementwise/multiply.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";
import { foldGrid, type Grid } from "../gpu/recorder.ts";
import { loadWeight, WEIGHT_DTYPES } from "./weights.ts";

/** The grid of a kernel with one element an invocation and workgroups of 256. */
export function elementGrid(n: number): Grid {
  return foldGrid(Math.ceil(n / 256));
}

export const addElements = defineKernel({
  name: "add",
  source: addSource,
  bindings: { a: "read f32", b: "read f32", y: "write f32" },
  params: { n: "u32" },
});

/** y = alpha·x, with ACC y += alpha·x. */
export const scaled = defineKernel({
  name: "scaled",
  source: scaledSource,
  bindings: { x: "read f32", y: "write f32" },
  params: { n: "u32", alpha: "f32" },
  variants: { ACC: [false, true] },
});

export const fillWords = defineKernel({
  name: "fill",
  source: fillSource,
  bindings: { y: "write u32" },
  params: { n: "u32", bits: "u32" },
});

export const finiteCheck = defineKernel({
  name: "check_finite",
  source: checkFiniteSource,
  bindings: { x: "read u32", flag: "update atomic<u32>" },
  params: { n: "u32", code: "u32" },
});

/** Stored elements to f32, from element `first` of x to element `to` of y. */
export const unpackWeights = defineKernel({
  name: "unpack",
  source: unpackSource,
  bindings: { x: "read u32", y: "write f32" },
  params: { n: "u32", first: "u32", to: "u32" },
  variants: { dtype: WEIGHT_DTYPES, ACC: [false, true] },
  snippets: ({ dtype }) => [loadWeight("x", dtype)],
});

export const multiplyElements = defineKernel({
  name: "multiply",
  source: multiplySource,
  bindings: { a: "read f32", b: "read f32", y: "write f32" },
  params: { n: "u32" },
  variants: { ACC: [false, true] },
});
