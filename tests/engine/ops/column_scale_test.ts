import { throws } from "node:assert/strict";
import { columnDot, scaleColumns } from "../../../engine/ops/column_scale.ts";
import { fill } from "../../../engine/ops/elementwise.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals, ROUNDED } from "./_reference.ts";

Deno.test(
  "scaleColumns() scales by a part of the vector, and gives gradients to both",
  withGpu(async (gpu) => {
    for (const [rows, cols, first, length] of [[1, 1, 0, 1], [3, 5, 2, 9], [70, 67, 0, 67], [300, 3, 3, 6]]) {
      await checkOp(gpu, {
        inputs: {
          x: { shape: [rows, cols], values: normals(rows * cols, 1) },
          s: { shape: [length], values: normals(length, 2) },
        },
        op: (ctx, { x, s }) => scaleColumns(ctx, x, s, { first, alpha: 0.5 }),
        reference: ({ x, s }) => x.map((v, i) => 0.5 * v * s[first + i % cols]),
        // Two roundings an element, and sums over rows in the gradient of s.
        tolerance: Math.max(2 * ROUNDED, dotTolerance(rows)),
        label: `${rows}×${cols}`,
      });
    }
  }),
);

Deno.test(
  "columnDot() sums products column by column, and adds to what is there when asked",
  withGpu(async (gpu) => {
    for (const [rows, cols, first] of [[1, 1, 0], [5, 3, 2], [200, 70, 7]]) {
      const a = normals(rows * cols, 1), b = normals(rows * cols, 2);
      const ta = fromHost(gpu, "a", [rows, cols], a), tb = fromHost(gpu, "b", [rows, cols], b);
      const into = createTensor(gpu, "into", [first + cols]);
      const [y] = await evaluate(gpu, (ctx) => {
        fill(ctx, into, 1);
        columnDot(ctx, ta, tb, into, { first, alpha: 2, accumulate: true });
        return [into];
      });
      const expected = new Float64Array(first + cols).fill(1);
      a.forEach((v, i) => expected[first + i % cols] += 2 * v * b[i]);
      assertClose(y, expected, dotTolerance(rows), `${rows}×${cols}`);
      [ta, tb, into].forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "scaleColumns() and columnDot() name the tensors when they do not fit",
  withGpu((gpu) => {
    const x = createTensor(gpu, "x", [2, 3]), s = createTensor(gpu, "s", [4]);
    const ctx = { gpu, r: gpu.recorder() };
    throws(() => scaleColumns(ctx, x, s, { first: 2 }), /columns of x \[2, 3\] by s \[4\] from 2 on/);
    throws(() => columnDot(ctx, x, s, s), /columns of x \[2, 3\] and s \[4\]/);
    [x, s].forEach((t) => freeTensor(gpu, t));
  }),
);
