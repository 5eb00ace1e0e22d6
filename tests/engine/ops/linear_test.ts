import { ok, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { scale } from "../../../engine/ops/elementwise.ts";
import { linear, type Weight } from "../../../engine/ops/linear.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32, writeBytes, writeTensor } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, type Input, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals, pack } from "./_reference.ts";

interface Case {
  layout: Weight["layout"];
  rows: number;
  out: number;
  in: number;
  dtype?: "f32" | "f16" | "bf16";
  bias?: boolean;
  residual?: boolean;
  /** Rank of each overlay. */
  overlays?: number[];
  maxShardBytes?: number;
}

/** The matrix as stored, row shards and all, with the f64 values that its bytes stand for. */
function stored(gpu: Gpu, c: Case): { matrix: Tensor; values: Float64Array } {
  const { dtype = "f32", maxShardBytes } = c;
  const shape = c.layout === "out_in" ? [c.out, c.in] : [c.in, c.out];
  const whole = normals(c.out * c.in, 7);
  const { bytes, values } = dtype === "f32"
    ? { bytes: new Uint8Array(Float32Array.from(whole).buffer), values: whole }
    : pack(whole, dtype);
  const matrix = createTensor(gpu, "w", shape, { dtype, maxShardBytes });
  if (maxShardBytes) ok(matrix.shards.length > 2, "The test wants several shards");
  writeBytes(gpu, matrix, 0, bytes);
  return { matrix, values };
}

/** y = x Wᵀ + b + residual + Σ x right leftᵀ. */
function reference(c: Case, constant: Float64Array) {
  return (t: Record<string, Float64Array>) => {
    const y = new Float64Array(c.rows * c.out);
    const dense = Float64Array.from({ length: c.out * c.in }, (_, at) => {
      const [o, i] = [Math.floor(at / c.in), at % c.in];
      let w = (t.w ?? constant)[c.layout === "out_in" ? at : i * c.out + o];
      c.overlays?.forEach((rank, n) => {
        for (let k = 0; k < rank; k++) w += t[`left${n}`][o * rank + k] * t[`right${n}`][i * rank + k];
      });
      return w;
    });
    for (let r = 0; r < c.rows; r++) {
      for (let o = 0; o < c.out; o++) {
        let sum = (t.bias?.[o] ?? 0) + (t.residual?.[r * c.out + o] ?? 0);
        for (let i = 0; i < c.in; i++) sum += t.x[r * c.in + i] * dense[o * c.in + i];
        y[r * c.out + o] = sum;
      }
    }
    return y;
  };
}

async function check(gpu: Gpu, c: Case) {
  const { matrix, values } = stored(gpu, c);
  // A plain f32 matrix is an input like the others; packed and sharded ones have their own gradient test.
  const trained = !c.maxShardBytes && (c.dtype ?? "f32") === "f32";
  const input = (shape: number[], seed: number): Input => ({
    shape,
    values: normals(shape[0] * (shape[1] ?? 1), seed),
  });
  const inputs: Record<string, Input> = { x: input([c.rows, c.in], 1) };
  if (trained) inputs.w = { shape: [...matrix.shape], values };
  if (c.bias) inputs.bias = input([c.out], 2);
  if (c.residual) inputs.residual = input([c.rows, c.out], 3);
  c.overlays?.forEach((rank, n) => {
    inputs[`left${n}`] = input([c.out, rank], 20 + n);
    inputs[`right${n}`] = input([c.in, rank], 30 + n);
  });
  const ranks = (c.overlays ?? []).reduce((a, b) => a + b, 0);
  await checkOp(gpu, {
    inputs,
    op: (ctx, t) => {
      const { layout, out, in: inner } = c;
      const overlays = (c.overlays ?? []).map((_, n) => ({ left: t[`left${n}`], right: t[`right${n}`] }));
      const w = { role: "test", name: "w", matrix: t.w ?? matrix, layout, out, in: inner };
      return linear(ctx, t.x, { ...w, bias: t.bias, overlays }, { residual: t.residual });
    },
    reference: reference(c, values),
    // Sums over inputs, outputs or rows; through an overlay, of products with one more factor of order √rank.
    tolerance: dotTolerance(Math.max(c.in, c.out, c.rows)) * (1 + Math.sqrt(ranks)),
    label: JSON.stringify(c),
  });
  freeTensor(gpu, matrix);
}

const LAYOUTS = ["out_in", "in_out"] as const;

for (const layout of LAYOUTS) {
  Deno.test(
    `linear() equals the f64 formula and its differences on odd ${layout} shapes`,
    withGpu(async (gpu) => {
      for (const [rows, out, inner] of [[1, 1, 1], [3, 7, 5], [9, 8, 17], [17, 33, 8], [5, 12, 12]]) {
        await check(gpu, { layout, rows, out, in: inner });
      }
    }),
  );

  Deno.test(
    `linear() adds bias and residual to ${layout} weights, with all gradients`,
    withGpu(async (gpu) => {
      await check(gpu, { layout, rows: 3, out: 7, in: 5, bias: true });
      await check(gpu, { layout, rows: 5, out: 8, in: 9, residual: true });
      await check(gpu, { layout, rows: 9, out: 16, in: 11, bias: true, residual: true });
    }),
  );

  Deno.test(
    `linear() stacks overlays on ${layout} weights, with gradients to their factors`,
    withGpu(async (gpu) => {
      await check(gpu, { layout, rows: 3, out: 7, in: 5, overlays: [1] });
      await check(gpu, { layout, rows: 9, out: 8, in: 12, overlays: [1, 3, 2], bias: true, residual: true });
    }),
  );

  Deno.test(
    `linear() reads ${layout} weights of 16 bits exactly`,
    withGpu(async (gpu) => {
      for (const dtype of ["f16", "bf16"] as const) {
        await check(gpu, { layout, dtype, rows: 5, out: 7, in: 9, bias: true });
        await check(gpu, { layout, dtype, rows: 9, out: 16, in: 24, residual: true, overlays: [2] });
      }
    }),
  );

  Deno.test(
    `linear() loops over row shards of ${layout} weights of every dtype`,
    withGpu(async (gpu) => {
      for (const dtype of ["f32", "f16", "bf16"] as const) {
        for (const [out, inner] of [[13, 9], [16, 24]]) {
          const width = (layout === "out_in" ? inner : out) * (dtype === "f32" ? 4 : 2);
          const maxShardBytes = 4 * width;
          await check(gpu, { layout, dtype, rows: 5, out, in: inner, maxShardBytes, bias: true });
          await check(gpu, {
            ...{ layout, dtype, rows: 3, out, in: inner, maxShardBytes },
            ...{ residual: true, overlays: [1, 2] },
          });
        }
      }
    }),
  );

  Deno.test(
    `linear() adds the gradient of ${layout} weights to its row shards`,
    withGpu(async (gpu) => {
      const [rows, out, inner] = [9, 11, 13];
      const width = layout === "out_in" ? inner : out;
      const maxShardBytes = 4 * 4 * width;
      const { matrix } = stored(gpu, { layout, rows, out, in: inner, maxShardBytes });
      const [x, dy] = [normals(rows * inner, 1), normals(rows * out, 2)];
      const [xt, dyt] = [fromHost(gpu, "x", [rows, inner], x), fromHost(gpu, "dy", [rows, out], dy)];
      // Other cuts than the matrix has: the two need not agree.
      const grad = createTensor(gpu, "dw", matrix.shape, { maxShardBytes: 2 * 4 * width });
      writeTensor(gpu, grad, new Float32Array(out * inner).fill(1));
      await evaluate(gpu, (ctx) => {
        ctx.tape!.require(matrix, grad);
        const w: Weight = { role: "test", name: "w", matrix, layout, out, in: inner, overlays: [] };
        const y = linear(ctx, xt, w);
        ctx.tape!.setGrad(y, reshape(dyt, y.shape));
        ctx.tape!.backward();
        return [];
      });
      const expected = new Float64Array(out * inner).fill(1);
      for (let r = 0; r < rows; r++) {
        for (let o = 0; o < out; o++) {
          for (let i = 0; i < inner; i++) {
            // `evaluate` runs the plan twice, and each run adds.
            expected[layout === "out_in" ? o * inner + i : i * out + o] += 2 * dy[r * out + o] *
              x[r * inner + i];
          }
        }
      }
      assertClose(await readF32(gpu, grad), expected, dotTolerance(rows), "dw");
      [matrix, xt, dyt, grad].forEach((t) => freeTensor(gpu, t));
    }),
  );
}

Deno.test(
  "linear() adds up gradients when one weight is used twice",
  withGpu(async (gpu) => {
    const n = 6;
    await checkOp(gpu, {
      inputs: {
        x: { shape: [3, n], values: normals(3 * n, 1) },
        w: { shape: [n, n], values: normals(n * n, 2, 0.4) },
      },
      op: (ctx, { x, w }) => {
        const weight: Weight = {
          ...{ role: "twice", name: "w", matrix: w, layout: "out_in", out: n, in: n, overlays: [] },
        };
        const y = linear(ctx, x, weight);
        return linear(ctx, scale(ctx, y, 0.5), weight, { residual: y });
      },
      reference: ({ x, w }) => {
        const once = reference({ layout: "out_in", rows: 3, out: n, in: n }, w);
        const y = once({ x });
        return once({ x: y.map((v) => v / 2) }).map((v, i) => v + y[i]);
      },
      tolerance: 2 * dotTolerance(n),
    });
  }),
);

Deno.test(
  "linear() names role and tensor when inner sizes differ",
  withGpu((gpu) => {
    const x = createTensor(gpu, "h", [2, 5]);
    const matrix = createTensor(gpu, "w", [3, 4]);
    const w: Weight = {
      role: "layer.0.mlp.up",
      name: "w",
      matrix,
      layout: "out_in",
      out: 3,
      in: 4,
      overlays: [],
    };
    throws(
      () => linear({ gpu, r: gpu.recorder() }, x, w),
      /Cannot apply layer.0.mlp.up \[3, 4\] to h \[2, 5\]: inner sizes differ/,
    );
    [x, matrix].forEach((t) => freeTensor(gpu, t));
  }),
);
