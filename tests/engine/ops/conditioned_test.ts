import { joinRows } from "../../../engine/ops/columns.ts";
import {
  groupProduct,
  lstmStep,
  sigmoidGain,
  softmaxRows,
  tanh,
  weightNorm,
} from "../../../engine/ops/conditioned.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, withGpu } from "../../_gpu.ts";
import { dotTolerance, ELEMENTWISE, normals, ROUNDED } from "./_reference.ts";

const ROWS = 5, WIDTH = 7;

const input = (rows: number, width: number, seed: number) => (
  { shape: [rows, width], values: normals(rows * width, seed) }
);

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

Deno.test(
  "lstmStep() equals the f64 step in PyTorch's order, with its gradients, and rows that ended stay",
  withGpu(async (gpu) => {
    const alive = [1, 0, 1, 1, 0];
    const live = fromHost(gpu, "live", [ROWS], Uint32Array.from(alive));
    await checkOp(gpu, {
      inputs: { z: input(ROWS, 4 * WIDTH, 1), c: input(ROWS, WIDTH, 2), h: input(ROWS, WIDTH, 3) },
      // Both outputs under each other.
      op: (ctx, { z, c, h }) => {
        const next = lstmStep(ctx, z, { c, h }, live);
        return joinRows(ctx, [next.c, next.h]);
      },
      reference: ({ z, c, h }) => {
        const gate = (at: number, k: number) =>
          z[4 * WIDTH * Math.floor(at / WIDTH) + k * WIDTH + at % WIDTH];
        const on = (at: number) => alive[Math.floor(at / WIDTH)];
        const next = c.map((v, at) =>
          on(at) ? sigmoid(gate(at, 1)) * v + sigmoid(gate(at, 0)) * Math.tanh(gate(at, 2)) : v
        );
        const out = h.map((v, at) => on(at) ? sigmoid(gate(at, 3)) * Math.tanh(next[at]) : v);
        return Float64Array.from([...next, ...out]);
      },
      tolerance: ELEMENTWISE,
    });
    freeTensor(gpu, live);
  }),
);

Deno.test(
  "tanh(), softmaxRows() and sigmoidGain() equal their f64 formulas and differences",
  withGpu(async (gpu) => {
    await checkOp(gpu, {
      inputs: { x: input(ROWS, WIDTH, 1) },
      op: (ctx, { x }) => tanh(ctx, x),
      reference: ({ x }) => x.map(Math.tanh),
      tolerance: ELEMENTWISE,
    });
    await checkOp(gpu, {
      inputs: { x: input(ROWS, 65, 1) },
      op: (ctx, { x }) => softmaxRows(ctx, x),
      reference: ({ x }) =>
        x.map((v, at) => {
          const row = x.subarray(65 * Math.floor(at / 65), 65 * Math.floor(at / 65) + 65);
          return Math.exp(v) / row.reduce((sum, u) => sum + Math.exp(u), 0);
        }),
      tolerance: ELEMENTWISE,
    });
    await checkOp(gpu, {
      inputs: { x: input(ROWS, WIDTH, 1), e: input(ROWS, 1, 2) },
      op: (ctx, { x, e }) => sigmoidGain(ctx, x, e, 0.7),
      reference: ({ x, e }) => x.map((v, at) => 0.7 * sigmoid(e[Math.floor(at / WIDTH)]) * v),
      tolerance: ELEMENTWISE,
    });
  }),
);

Deno.test(
  "weightNorm() gives rows the wanted norms, with gradients to directions and gains",
  withGpu(async (gpu) => {
    await checkOp(gpu, {
      inputs: { v: input(ROWS, 67, 1), g: { shape: [ROWS], values: normals(ROWS, 2) } },
      op: (ctx, { v, g }) => weightNorm(ctx, v, g),
      reference: ({ v, g }) =>
        v.map((x, at) => {
          const r = Math.floor(at / 67);
          return g[r] * x / Math.hypot(...v.subarray(67 * r, 67 * r + 67));
        }),
      tolerance: dotTolerance(67),
    });
  }),
);

Deno.test(
  "groupProduct() multiplies each row by its group's factors, and joinRows() puts parts under each other",
  withGpu(async (gpu) => {
    const groups = [0, 2, 2, 0, 1], x = normals(ROWS * WIDTH, 1);
    const [rows, group] = [
      fromHost(gpu, "x", [ROWS, WIDTH], x),
      fromHost(gpu, "group", [ROWS], Uint32Array.from(groups)),
    ];
    await checkOp(gpu, {
      inputs: { s: input(3, WIDTH, 2), more: input(2, WIDTH, 3) },
      op: (ctx, { s, more }) => joinRows(ctx, [groupProduct(ctx, rows, s, group), more]),
      reference: ({ s, more }) =>
        Float64Array.from([
          ...x.map((v, at) => v * s[groups[Math.floor(at / WIDTH)] * WIDTH + at % WIDTH]),
          ...more,
        ]),
      tolerance: 2 * ROUNDED,
    });
    [rows, group].forEach((t) => freeTensor(gpu, t));
  }),
);
