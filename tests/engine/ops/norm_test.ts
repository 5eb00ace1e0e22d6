import { throws } from "node:assert/strict";
import { layerNorm, rmsNorm } from "../../../engine/ops/norm.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { asGpuClass, checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { assertClose, dotTolerance, normals } from "./_reference.ts";

/** Rows × widths around the workgroup of 8 invocations a row, and a prime. */
const SHAPES = [[1, 1], [3, 7], [2, 8], [1, 9], [5, 67]];
const EPS = 1e-5;

type Values = Record<string, Float64Array>;

function reference(center: boolean, width: number, eps: number) {
  return ({ x, weight, bias }: Values) => {
    const y = new Float64Array(x.length);
    for (let start = 0; start < x.length; start += width) {
      const row = x.subarray(start, start + width);
      const mean = center ? row.reduce((a, b) => a + b, 0) / width : 0;
      const square = row.reduce((a, b) => a + (b - mean) ** 2, 0) / width;
      row.forEach((v, c) => {
        y[start + c] = (v - mean) / Math.sqrt(square + eps) * weight[c] + (bias ? bias[c] : 0);
      });
    }
    return y;
  };
}

function inputs(rows: number, width: number, bias: boolean) {
  const all = {
    x: { shape: [rows, width], values: normals(rows * width, 1) },
    weight: { shape: [width], values: normals(width, 2) },
    bias: { shape: [width], values: normals(width, 3) },
  };
  const { bias: _, ...without } = all;
  return bias ? all : without;
}

// The slope of a layer norm of one element is 1/√eps times rounding: a larger eps keeps it comparable.
const epsFor = (width: number) => width === 1 ? 0.1 : EPS;

Deno.test(
  "rmsNorm() equals the f64 formula and its differences when shapes are odd",
  withGpu(async (gpu) => {
    for (const [rows, width] of SHAPES) {
      await checkOp(gpu, {
        inputs: inputs(rows, width, false),
        op: (ctx, { x, weight }) => rmsNorm(ctx, x, weight, EPS),
        reference: reference(false, width, EPS),
        tolerance: dotTolerance(width),
        label: `${rows}×${width}`,
      });
    }
  }),
);

Deno.test(
  "layerNorm() equals the f64 formula and its differences when shapes are odd",
  withGpu(async (gpu) => {
    for (const [rows, width] of SHAPES) {
      for (const biased of rows === 5 ? [true, false] : [true]) {
        await checkOp(gpu, {
          inputs: inputs(rows, width, biased),
          op: (ctx, { x, weight, bias }) => layerNorm(ctx, x, weight, bias, epsFor(width)),
          reference: reference(true, width, epsFor(width)),
          tolerance: dotTolerance(width),
          label: `${rows}×${width}`,
        });
      }
    }
  }),
);

Deno.test(
  "layerNorm() keeps its precision when the mean is large",
  withGpu(async (gpu) => {
    const width = 67;
    const values = normals(width, 4).map((v) => Math.fround(v + 1000));
    const x = fromHost(gpu, "x", [1, width], values);
    const weight = fromHost(gpu, "weight", [width], new Float64Array(width).fill(1));
    const [y] = await evaluate(gpu, (ctx) => [layerNorm(ctx, x, weight, undefined, EPS)]);
    const expected = reference(true, width, EPS)({ x: values, weight: new Float64Array(width).fill(1) });
    // The mean is rounded to 6e-5 (1000 in f32) and its sum has √width such errors; σ is 1.
    assertClose(y, expected, 1000 * dotTolerance(width), "y");
    [x, weight].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "layerNorm() agrees on workgroups of 64 and 256 when the device is a GPU",
  withGpu(async (gpu) => {
    for (const width of [65, 2049]) {
      const given = inputs(2, width, true);
      await checkOp(gpu, {
        inputs: given,
        op: (ctx, { x, weight, bias }) => layerNorm(asGpuClass(ctx), x, weight, bias, EPS),
        reference: reference(true, width, EPS),
        tolerance: dotTolerance(width),
        wants: width === 65 ? ["x"] : [],
        label: `width ${width}`,
      });
    }
  }),
);

Deno.test(
  "rmsNorm() names both tensors when the weight does not fit",
  withGpu((gpu) => {
    const x = createTensor(gpu, "h", [2, 8]);
    const weight = createTensor(gpu, "ln.weight", [7]);
    const ctx = { gpu, r: gpu.recorder() };
    throws(
      () => rmsNorm(ctx, x, weight, EPS),
      /Cannot normalise h \[2, 8\] with ln.weight \[7\] of dtype f32/,
    );
    [x, weight].forEach((t) => freeTensor(gpu, t));
  }),
);
