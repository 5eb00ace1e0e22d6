import { deepStrictEqual } from "node:assert/strict";
import { Tape } from "../../../engine/ops/context.ts";
import { fill } from "../../../engine/ops/elementwise.ts";
import { gainRows, residualRelu } from "../../../engine/ops/residual_relu.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { normals } from "./_reference.ts";

/** A product, a sum and a rectifier; ds and dt sum up to four rows. */
const TOLERANCE = 1e-6;
const ROWS = 7, WIDTH = 13, FIRST = [0, 3, 3, 7], MODES = FIRST.length - 1;

const modeOf = (r: number) => FIRST.findLastIndex((first) => first <= r);

Deno.test(
  "residualRelu() equals the f64 block before and after the rectifier, with its gradients",
  withGpu(async (gpu) => {
    const first = fromHost(gpu, "first", [FIRST.length], Uint32Array.from(FIRST));
    for (const after of [false, true]) {
      await checkOp(gpu, {
        label: after ? "MALMEN" : "MEND",
        inputs: {
          h: { shape: [ROWS, WIDTH], values: normals(ROWS * WIDTH, 1) },
          x: { shape: [ROWS, WIDTH], values: normals(ROWS * WIDTH, 2) },
          scale: { shape: [MODES, WIDTH], values: normals(MODES * WIDTH, 3) },
          shift: { shape: [MODES, WIDTH], values: normals(MODES * WIDTH, 4) },
        },
        op: (ctx, { h, x, scale, shift }) => residualRelu(ctx, h, x, { scale, shift, first }, { after }),
        reference: ({ h, x, scale, shift }) =>
          h.map((v, i) => {
            const j = modeOf(Math.floor(i / WIDTH)) * WIDTH + i % WIDTH;
            return after
              ? v + scale[j] * Math.max(0, x[i]) + shift[j]
              : v + Math.max(0, x[i] * scale[j] + shift[j]);
          }),
        tolerance: TOLERANCE,
      });
    }
    freeTensor(gpu, first);
  }),
);

Deno.test(
  "residualRelu() has the derivative 1 at exactly 0",
  withGpu(async (gpu) => {
    const first = fromHost(gpu, "first", [2], Uint32Array.of(0, 1));
    const [h, x, shift] = ["h", "x", "shift"].map((name) => createTensor(gpu, name, [1, 3]));
    const scale = fromHost(gpu, "scale", [1, 3], Float32Array.of(1, 1, 1));
    for (const after of [false, true]) {
      const [dx] = await evaluate(gpu, ({ gpu, r }) => {
        const tape = new Tape(), ctx = { gpu, r, tape };
        tape.require(x);
        const y = residualRelu(ctx, h, x, { scale, shift, first }, { after });
        const dy = createTensor(gpu, "dy", [1, 3]);
        fill(ctx, dy, 1);
        tape.setGrad(y, dy);
        tape.backward();
        return [tape.grad(x)!];
      });
      deepStrictEqual([...dx], [1, 1, 1]);
    }
    [first, h, x, shift, scale].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "gainRows() scales kept rows by one element, with gradients to rows and element",
  withGpu(async (gpu) => {
    const kept = [1, 0, 1, 1, 0];
    const keep = fromHost(gpu, "keep", [5], Uint32Array.from(kept));
    await checkOp(gpu, {
      inputs: { x: { shape: [5, 9], values: normals(45, 1) }, s: { shape: [3], values: normals(3, 2) } },
      op: (ctx, { x, s }) => gainRows(ctx, x, s, keep, { at: 1, alpha: -2 }),
      reference: ({ x, s }) => x.map((v, i) => kept[Math.floor(i / 9)] ? -2 * s[1] * v : 0),
      tolerance: TOLERANCE,
    });
    freeTensor(gpu, keep);
  }),
);
