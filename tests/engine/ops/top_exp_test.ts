import assert from "node:assert/strict";
import { Tape } from "../../../engine/ops/context.ts";
import { fill, multiply } from "../../../engine/ops/elementwise.ts";
import { type TopExp, topExp } from "../../../engine/ops/top_exp.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, finiteDifference, normals, ROUNDED } from "./_reference.ts";

/** exp of f32 numbers of a few units: two roundings and the driver's exp. */
const EXP = 2e-5;

/** The plain sum, from all elements in order of size. */
function plain(x: Float64Array, cols: number, shift: Float64Array | undefined, options: TopExp): number {
  const { sign = 1, c = 0, scale = 1, k, diagonal } = options;
  const all = diagonal ? Array.from({ length: cols }, (_, j) => x[j * (cols + 1)]) : [...x];
  const u = all.map((v, e) => sign * v + c - (shift ? shift[(e % cols) * (cols + 1)] : 0));
  const best = u.sort((a, b) => b - a).slice(0, k);
  return scale * best.reduce((sum, v) => sum + Math.exp(v), 0) / best.length;
}

Deno.test(
  "topExp() is the mean of the k largest exponentials, with its gradients",
  withGpu(async (gpu) => {
    const cases: { rows: number; cols: number; options: Omit<TopExp, "shift">; shifted?: boolean }[] = [
      { rows: 300, cols: 3, options: { k: 125, c: 3, scale: 10 }, shifted: true },
      { rows: 67, cols: 1, options: { k: 5, c: 0.5 } },
      { rows: 4, cols: 4, options: { k: 1, sign: -1, diagonal: true } },
      { rows: 3, cols: 2, options: { k: 100 } },
    ];
    for (const [i, { rows, cols, options, shifted }] of cases.entries()) {
      const values = normals(rows * cols, i + 1), shiftValues = normals(cols * cols, 9);
      const x = fromHost(gpu, "x", [rows, cols], values);
      const shift = shifted ? fromHost(gpu, "shift", [cols, cols], shiftValues) : undefined;
      const value = createTensor(gpu, "value", [1]);
      const [y, dx, dshift] = await evaluate(gpu, (ctx) => {
        const tape = new Tape();
        tape.require(x);
        if (shift) tape.require(shift);
        fill(ctx, value, 0);
        topExp({ ...ctx, tape }, x, value, { ...options, shift });
        tape.backward();
        return [value, tape.grad(x)!, ...shift ? [tape.grad(shift)!] : []];
      });
      const of = (v: Float64Array, s: Float64Array) => plain(v, cols, shifted ? s : undefined, options);
      assertClose(y, Float64Array.of(of(values, shiftValues)), EXP, `${i} value`);
      assertClose(dx, finiteDifference((v) => of(v, shiftValues), values), EXP, `${i} dx`);
      if (shifted) {
        assertClose(
          dshift,
          finiteDifference((s) => of(values, s), shiftValues),
          EXP,
          `${i} dshift`,
        );
      }
      [x, value, ...shift ? [shift] : []].forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "topExp() shares the last places among equals and stays finite far out",
  withGpu(async (gpu) => {
    const x = fromHost(gpu, "x", [5, 1], Float32Array.of(1, 2, 1, 1, 90));
    const value = createTensor(gpu, "value", [1]);
    const [y, dx] = await evaluate(gpu, (ctx) => {
      const tape = new Tape();
      tape.require(x);
      fill(ctx, value, 0);
      topExp({ ...ctx, tape }, x, value, { k: 3 });
      tape.backward();
      return [value, tape.grad(x)!];
    });
    const e = Math.E;
    assertClose(dx.subarray(0, 4), Float64Array.of(e / 9, e * e / 3, e / 9, e / 9), EXP, "dx");
    assert.ok(Number.isFinite(y[0]) && Math.abs(dx[4] / (Math.exp(30) / 3) - 1) < 1e-5);
    [x, value].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "multiply() equals the f64 product and its differences",
  withGpu(async (gpu) => {
    await checkOp(gpu, {
      inputs: {
        a: { shape: [7, 37], values: normals(259, 1) },
        b: { shape: [7, 37], values: normals(259, 2) },
      },
      op: (ctx, { a, b }) => multiply(ctx, a, b),
      reference: ({ a, b }) => a.map((v, i) => v * b[i]),
      tolerance: ROUNDED,
    });
  }),
);
