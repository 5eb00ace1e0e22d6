import { deepStrictEqual, throws } from "node:assert/strict";
import { Tape } from "../../../engine/ops/context.ts";
import { add, copy, scale } from "../../../engine/ops/elementwise.ts";
import {
  addToRows,
  capture,
  captureGrad,
  gatherRows,
  groupMean,
  scatterRows,
} from "../../../engine/ops/rows.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals, ROUNDED } from "./_reference.ts";

const u32 = (...ids: number[]) => Uint32Array.from(ids);

/** Widths around the workgroup of 256 elements of a few rows, and a prime. */
const WIDTHS = [1, 51, 52, 67];

Deno.test(
  "gatherRows() equals the f64 selection and its differences when widths are odd",
  withGpu(async (gpu) => {
    const picks = [4, 0, 3, 6, 1];
    const index = fromHost(gpu, "index", [5], u32(...picks));
    for (const width of WIDTHS) {
      await checkOp(gpu, {
        inputs: { x: { shape: [7, width], values: normals(7 * width, 1) } },
        op: (ctx, { x }) => gatherRows(ctx, x, index),
        reference: ({ x }) =>
          Float64Array.from(picks.flatMap((r) => [...x.subarray(r * width, (r + 1) * width)])),
        tolerance: ROUNDED,
        label: `width ${width}`,
      });
    }
    freeTensor(gpu, index);
  }),
);

Deno.test(
  "gatherRows() adds up gradients when two of them pick the same rows",
  withGpu(async (gpu) => {
    const [a, b] = [fromHost(gpu, "a", [2], u32(2, 0)), fromHost(gpu, "b", [2], u32(1, 2))];
    await checkOp(gpu, {
      inputs: { x: { shape: [3, 5], values: normals(15, 1) } },
      op: (ctx, { x }) => add(ctx, gatherRows(ctx, x, a), gatherRows(ctx, x, b)),
      reference: ({ x }) =>
        Float64Array.from({ length: 10 }, (_, i) => i < 5 ? x[10 + i] + x[5 + i] : x[i - 5] + x[5 + i]),
      tolerance: 2 * ROUNDED,
    });
    [a, b].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "scatterRows() replaces the rows it names and sends their gradient back",
  withGpu(async (gpu) => {
    const index = fromHost(gpu, "index", [2], u32(3, 1));
    const base = normals(4 * 5, 2);
    const given = fromHost(gpu, "base", [4, 5], base);
    await checkOp(gpu, {
      inputs: { x: { shape: [2, 5], values: normals(10, 1) } },
      op: (ctx, { x }) => {
        const into = scale({ ...ctx, tape: undefined }, given, 1);
        scatterRows(ctx, x, index, into);
        return into;
      },
      reference: ({ x }) => {
        const y = base.slice();
        [3, 1].forEach((r, i) => y.set(x.subarray(i * 5, i * 5 + 5), r * 5));
        return y;
      },
      tolerance: ROUNDED,
    });
    [index, given].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "addToRows() equals the f64 formula and its differences when several rows share a delta",
  withGpu(async (gpu) => {
    const rows = [5, 1, 4, 0];
    const groups = [1, 0, 1, 1];
    const [index, group] = [
      fromHost(gpu, "index", [4], u32(...rows)),
      fromHost(gpu, "group", [4], u32(...groups)),
    ];
    for (const width of [1, 63, 64, 65]) {
      await checkOp(gpu, {
        inputs: {
          x: { shape: [6, width], values: normals(6 * width, 1) },
          delta: { shape: [3, width], values: normals(3 * width, 2) },
        },
        op: (ctx, { x, delta }) => addToRows(ctx, x, index, group, delta),
        reference: ({ x, delta }) => {
          const y = x.slice();
          rows.forEach((r, i) => {
            for (let c = 0; c < width; c++) y[r * width + c] += delta[groups[i] * width + c];
          });
          return y;
        },
        tolerance: dotTolerance(3),
        label: `width ${width}`,
      });
    }
    [index, group].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "groupMean() equals the f64 mean of each group when groups are mixed and one is empty",
  withGpu(async (gpu) => {
    const [n, width] = [7, 67];
    const groups = [2, 0, 2, 2, 0, 2, 0];
    const host = normals(n * width, 1);
    const weights = groups.map((g) => Math.fround(1 / groups.filter((h) => h === g).length));
    const x = fromHost(gpu, "x", [n, width], host);
    const group = fromHost(gpu, "group", [n], u32(...groups));
    const weight = fromHost(gpu, "weight", [n], weights);
    const into = createTensor(gpu, "into", [3, width]);
    await evaluate(gpu, (ctx) => (groupMean(ctx, x, group, weight, into), []));
    const expected = new Float64Array(3 * width);
    host.forEach((v, i) => {
      const row = Math.floor(i / width);
      expected[groups[row] * width + i % width] += weights[row] * v;
    });
    assertClose(await readF32(gpu, into), expected, dotTolerance(4), "means");
    [x, group, weight, into].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "capture() keeps rows or the whole beyond the plan, bit for bit",
  withGpu(async (gpu) => {
    const host = Float32Array.from(normals(12, 1));
    host[5] = 1e-42; // subnormal
    const x = fromHost(gpu, "x", [4, 3], host);
    const index = fromHost(gpu, "index", [2], u32(3, 1));
    const [some, all] = [createTensor(gpu, "some", [2, 3]), createTensor(gpu, "all", [4, 3])];
    await evaluate(gpu, (ctx) => {
      capture(ctx, x, index, some);
      capture(ctx, x, undefined, all);
      return [];
    });
    deepStrictEqual(await readF32(gpu, all), host);
    deepStrictEqual(await readF32(gpu, some), Float32Array.of(...host.slice(9, 12), ...host.slice(3, 6)));
    [x, index, some, all].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "captureGrad() keeps the whole gradient when its buffer is shared and added to later",
  withGpu(async (gpu) => {
    const host = normals(5, 1);
    const x = fromHost(gpu, "x", [1, 5], host);
    const seed = normals(5, 2);
    const dy = fromHost(gpu, "dy", [1, 5], seed);
    const [dh, dUnused] = [createTensor(gpu, "dh", [1, 5]), createTensor(gpu, "unused", [1, 5])];
    const [dx] = await evaluate(gpu, (ctx) => {
      ctx.tape!.require(x);
      const h = scale(ctx, x, 2);
      captureGrad(ctx, h, dh);
      const unused = scale(ctx, x, 3);
      captureGrad(ctx, unused, dUnused);
      // y = h + (h + 4 h): the sums pass one buffer on to all of h, h + 4 h and y.
      const y = add(ctx, h, add(ctx, h, scale(ctx, h, 4)));
      ctx.tape!.setGrad(y, dy);
      ctx.tape!.backward();
      return [ctx.tape!.grad(x)!];
    });
    assertClose(await readF32(gpu, dh), seed.map((v) => 6 * v), 4 * ROUNDED, "dh");
    assertClose(dx, seed.map((v) => 12 * v), 4 * ROUNDED, "dx");
    deepStrictEqual(await readF32(gpu, dUnused), new Float32Array(5));
    assertClose(await readF32(gpu, dy), seed, 0, "the seed is not written");
    [x, dy, dh, dUnused].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "row ops name the tensors when their sizes do not fit",
  withGpu((gpu) => {
    const x = createTensor(gpu, "h", [4, 6]);
    const delta = createTensor(gpu, "delta", [1, 5]);
    const index = createTensor(gpu, "index", [2], { dtype: "u32" });
    const ctx = { gpu, r: gpu.recorder(), tape: new Tape() };
    throws(
      () => addToRows(ctx, x, index, index, delta),
      /Cannot add delta \[1, 5\].*to index \[2\] of h \[4, 6\]/,
    );
    throws(() => scatterRows(ctx, delta, index, x), /Cannot copy rows of delta \[1, 5\] to h \[4, 6\]/);
    throws(() => captureGrad(ctx, x, x), /Cannot capture the gradient of h \[4, 6\]: nothing asks for it/);
    throws(() => copy(ctx, x, delta), /Cannot copy or add h \[4, 6\] and delta \[1, 5\]: their sizes differ/);
    [x, delta, index].forEach((t) => freeTensor(gpu, t));
  }),
);
