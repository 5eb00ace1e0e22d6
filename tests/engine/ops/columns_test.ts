import { throws } from "node:assert/strict";
import { splitColumns } from "../../../engine/ops/columns.ts";
import { Tape, temp } from "../../../engine/ops/context.ts";
import { add, scale } from "../../../engine/ops/elementwise.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, normals, ROUNDED } from "./_reference.ts";

const columnsOf = (x: Float64Array, cols: number, from: number, count: number) =>
  x.filter((_, i) => i % cols >= from && i % cols < from + count);

Deno.test(
  "splitColumns() gives every column to its part, and its gradient back",
  withGpu(async (gpu) => {
    for (const [rows, part] of [[1, 1], [3, 5], [7, 64], [2, 67]]) {
      const cols = 3 * part;
      await checkOp(gpu, {
        inputs: { x: { shape: [rows, cols], values: normals(rows * cols, 1) } },
        op: (ctx, { x }) => {
          // A copy: the split writes its gradient, while checkOp also wants it added to another.
          const [a, b, c] = splitColumns(ctx, scale(ctx, x, 1), [part, part, part]);
          return add(ctx, a, add(ctx, scale(ctx, b, 2), scale(ctx, c, 3)));
        },
        reference: ({ x }) => {
          const [a, b, c] = [0, 1, 2].map((n) => columnsOf(x, cols, n * part, part));
          return a.map((v, i) => v + 2 * b[i] + 3 * c[i]);
        },
        tolerance: 3 * ROUNDED,
        label: `${rows}×${part}`,
      });
    }
  }),
);

Deno.test(
  "splitColumns() cuts unequal widths where grouped queries need them",
  withGpu(async (gpu) => {
    const [rows, widths] = [5, [8, 2, 1]];
    const x = normals(rows * 11, 1);
    const t = fromHost(gpu, "x", [rows, 11], x);
    const parts = await evaluate(gpu, (ctx) => splitColumns(ctx, t, widths));
    widths.forEach((width, n) => {
      const from = widths.slice(0, n).reduce((a, b) => a + b, 0);
      assertClose(parts[n], columnsOf(x, 11, from, width), 0, `part ${n}`);
    });
    freeTensor(gpu, t);
  }),
);

Deno.test(
  "splitColumns() names the tensor when widths do not fit or a part has no gradient",
  withGpu((gpu) => {
    const x = createTensor(gpu, "qkv", [2, 6]);
    const ctx = { gpu, r: gpu.recorder(), tape: new Tape() };
    throws(() => splitColumns(ctx, x, [2, 3]), /Cannot split qkv \[2, 6\] into columns 2 \+ 3/);
    ctx.tape.require(x);
    const [part] = splitColumns(ctx, x, [2, 4]);
    ctx.tape.setGrad(part, temp(ctx, "d part", part.shape));
    throws(() => ctx.tape.backward(), /A part of qkv \[2, 6\] has no gradient/);
    freeTensor(gpu, x);
  }),
);
