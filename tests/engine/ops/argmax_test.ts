import { deepStrictEqual, throws } from "node:assert/strict";
import { argmaxRows } from "../../../engine/ops/argmax.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { asGpuClass, evaluate, withGpu } from "../../_gpu.ts";
import { normals } from "./_reference.ts";

Deno.test(
  "argmaxRows() finds the f64 maximum and the lowest index among equals when widths are odd",
  withGpu(async (gpu) => {
    const rows = 13;
    for (const width of [1, 7, 8, 9, 67, 2049]) {
      // Few distinct values, so that most rows have several maxima in different invocations.
      const host = normals(rows * width, width).map((v) => Math.min(Math.round(v), 2));
      host.fill(-1e30, 0, width);
      const x = fromHost(gpu, "logits", [rows, width], host);
      const [small, large] = [0, 1].map((i) => createTensor(gpu, `argmax ${i}`, [rows], { dtype: "u32" }));
      await evaluate(gpu, (ctx) => {
        argmaxRows(ctx, x, small);
        argmaxRows(asGpuClass(ctx), x, large);
        return [];
      });
      const expected = Uint32Array.from({ length: rows }, (_, r) => {
        const row = host.subarray(r * width, (r + 1) * width);
        return row.indexOf(row.reduce((a, b) => Math.max(a, b)));
      });
      deepStrictEqual(await readTensors(gpu, small, large), [expected, expected], `width ${width}`);
      [x, small, large].forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "argmaxRows() passes over NaN and gives 0 when a row has nothing else",
  withGpu(async (gpu) => {
    const x = fromHost(gpu, "logits", [2, 3], [NaN, -5, NaN, NaN, NaN, NaN]);
    const into = createTensor(gpu, "into", [2], { dtype: "u32" });
    await evaluate(gpu, (ctx) => (argmaxRows(ctx, x, into), []));
    deepStrictEqual((await readTensors(gpu, into))[0], Uint32Array.of(1, 0));
    const ctx = { gpu, r: gpu.recorder() };
    throws(() => argmaxRows(ctx, x, x), /Cannot store the argmax of logits \[2, 3\] in logits/);
    [x, into].forEach((t) => freeTensor(gpu, t));
  }),
);
