import { deepStrictEqual, throws } from "node:assert/strict";
import { add, addInto, checkFinite, copy, fill, scale } from "../../../engine/ops/elementwise.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32, readTensors, writeTensor } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, normals, ROUNDED } from "./_reference.ts";

/** Around the workgroup of 256, and a prime. */
const SIZES = [1, 255, 256, 257, 769];

Deno.test(
  "add() equals the f64 sum and passes its gradient to both when sizes are odd",
  withGpu(async (gpu) => {
    for (const n of SIZES) {
      await checkOp(gpu, {
        inputs: { a: { shape: [n], values: normals(n, 1) }, b: { shape: [n], values: normals(n, 2) } },
        op: (ctx, { a, b }) => add(ctx, a, b),
        reference: ({ a, b }) => a.map((v, i) => v + b[i]),
        tolerance: 2 * ROUNDED,
        label: `${n} elements`,
      });
    }
  }),
);

Deno.test(
  "add() doubles the gradient when both terms are one tensor",
  withGpu(async (gpu) => {
    await checkOp(gpu, {
      inputs: { x: { shape: [3, 5], values: normals(15, 1) } },
      op: (ctx, { x }) => add(ctx, x, x),
      reference: ({ x }) => x.map((v) => 2 * v),
      tolerance: 2 * ROUNDED,
    });
  }),
);

Deno.test(
  "add() keeps shared gradients apart when two branches of one input run in parallel",
  withGpu(async (gpu) => {
    // y = x + 2x + 3·(5x), as in a parallel attention and MLP with a norm each: the inner 5x adds to x's
    // gradient while that of 2x, the same buffer at first, is still to be read.
    await checkOp(gpu, {
      inputs: { x: { shape: [1, 7], values: normals(7, 1) } },
      op: (ctx, { x }) => {
        const h = scale(ctx, x, 1);
        const first = scale(ctx, h, 2);
        const second = scale(ctx, scale(ctx, h, 5), 3);
        return add(ctx, add(ctx, h, first), second);
      },
      reference: ({ x }) => x.map((v) => 18 * v),
      tolerance: 8 * ROUNDED,
    });
  }),
);

Deno.test(
  "scale() equals the f64 product and its differences",
  withGpu(async (gpu) => {
    await checkOp(gpu, {
      inputs: { x: { shape: [257], values: normals(257, 1) } },
      op: (ctx, { x }) => scale(ctx, x, -0.3),
      reference: ({ x }) => x.map((v) => -0.3 * v),
      tolerance: 2 * ROUNDED,
    });
  }),
);

Deno.test(
  "fill(), copy() and addInto() work in place across row shards",
  withGpu(async (gpu) => {
    const options = { maxShardBytes: 2 * 7 * 4 };
    const host = normals(35, 1);
    const x = fromHost(gpu, "x", [5, 7], host, options);
    const [ones, kept] = [
      createTensor(gpu, "ones", [5, 7], options),
      createTensor(gpu, "kept", [5, 7], options),
    ];
    const ids = createTensor(gpu, "ids", [3], { dtype: "u32" });
    await evaluate(gpu, (ctx) => {
      fill(ctx, ones, 1);
      fill(ctx, ids, 7);
      copy(ctx, x, kept);
      addInto(ctx, x, ones);
      return [];
    });
    deepStrictEqual(x.shards.length, 3);
    deepStrictEqual(await readF32(gpu, kept), Float32Array.from(host));
    deepStrictEqual((await readTensors(gpu, ids))[0], Uint32Array.of(7, 7, 7));
    assertClose(await readF32(gpu, ones), host.map((v) => v + 1), ROUNDED, "1 + x");
    [x, ones, kept, ids].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "checkFinite() keeps the code of the first tensor that has a NaN or an infinity",
  withGpu(async (gpu) => {
    const fine = fromHost(gpu, "fine", [300], new Float32Array(300).fill(3.4e38));
    const flag = createTensor(gpu, "flag", [1], { dtype: "u32" });
    const r = gpu.recorder();
    const tensors = [NaN, Infinity, -Infinity].map((bad) => {
      const values = new Float32Array(300);
      values[299] = bad;
      return fromHost(gpu, String(bad), [300], values);
    });
    [fine, ...tensors].forEach((t, i) => checkFinite({ gpu, r }, t, flag, 10 + i));
    using plan = r.finish("check");
    const found = [];
    for (let i = 0; i <= tensors.length; i++) {
      plan.run();
      found.push((await readTensors(gpu, flag))[0][0]);
      writeTensor(gpu, flag, Uint32Array.of(0));
      if (i < tensors.length) writeTensor(gpu, tensors[i], new Float32Array(300));
    }
    deepStrictEqual(found, [11, 12, 13, 0]);
    [fine, flag, ...tensors].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "elementwise ops name the tensors when they do not fit",
  withGpu((gpu) => {
    const [a, b] = [createTensor(gpu, "a", [2, 3]), createTensor(gpu, "b", [2, 4])];
    const half = createTensor(gpu, "half", [2, 4], { dtype: "f16" });
    const sharded = createTensor(gpu, "sharded", [4, 2], { maxShardBytes: 16 });
    const ctx = { gpu, r: gpu.recorder() };
    throws(() => add(ctx, a, b), /Cannot add a \[2, 3\] and b \[2, 4\]: their sizes differ/);
    throws(() => fill(ctx, half, 1), /Cannot fill half \[2, 4\] of dtype f16/);
    throws(() => copy(ctx, b, sharded), /The row shards of b \[2, 4\] and sharded \[4, 2\] differ/);
    [a, b, half, sharded].forEach((t) => freeTensor(gpu, t));
  }),
);
