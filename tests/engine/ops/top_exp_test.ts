/** The mean of the largest exponentials against brute force in f64, and its gradients by central differences. */
import assert from "node:assert/strict";
import { type Ctx, Tape } from "../../../engine/ops/context.ts";
import { copy } from "../../../engine/ops/elementwise.ts";
import { type TopExp, topExp } from "../../../engine/ops/top_exp.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { relativeError } from "../models/_fixtures.ts";
import { withGpu } from "../../_gpu.ts";
import { normals } from "./_reference.ts";

/** Exponentials in f32, a thousand summed. */
const CLOSE = 1e-5;

type Options = Omit<TopExp, "shift">;

/** Sorted, cut off, averaged. */
function bruteForce(x: ArrayLike<number>, cols: number, options: Options, shift?: ArrayLike<number>): number {
  const { sign = 1, c = 0, k, scale = 1, diagonal } = options;
  const all = Array.from(x, (value, e) => sign * value + c - (shift ? shift[(e % cols) * (cols + 1)] : 0))
    .filter((_, e) => !diagonal || Math.floor(e / cols) === e % cols)
    .toSorted((a, b) => b - a)
    .slice(0, k);
  return scale * all.reduce((sum, u) => sum + Math.exp(u), 0) / all.length;
}

/** d f / d x by central differences. */
function differences(f: (x: Float64Array) => number, at: ArrayLike<number>): number[] {
  const x = Float64Array.from(at), h = 1e-6;
  return Array.from(x, (was, i) => {
    const [up, down] = [was + h, was - h].map((value) => (x[i] = value, f(x)));
    x[i] = was;
    return (up - down) / (2 * h);
  });
}

const CASES: { what: string; rows: number; cols: number; options: Options; shifted: boolean }[] = [
  { what: "own activations", rows: 4, cols: 4, options: { sign: -1, diagonal: true, k: 1 }, shifted: false },
  { what: "below β", rows: 60, cols: 3, options: { c: 3, k: 25, scale: 10 }, shifted: false },
  { what: "below the own by γ", rows: 60, cols: 3, options: { c: 3, k: 25, scale: 10 }, shifted: true },
  { what: "more asked for than there are", rows: 5, cols: 2, options: { k: 125 }, shifted: true },
];
for (const { what, rows, cols, options, shifted } of CASES) {
  Deno.test(
    `topExp() and its gradients are brute force's: ${what}`,
    withGpu(async (gpu) => {
      const values = Float32Array.from(normals(rows * cols, 1, 1));
      const shifts = shifted ? Float32Array.from(normals(cols * cols, 2, 1)) : undefined;
      const x = fromHost(gpu, "x", [rows, cols], values);
      const shift = shifts && fromHost(gpu, "shift", [cols, cols], shifts);
      const value = fromHost(gpu, "value", [1], Float32Array.of(0));
      const inputs = [x, ...shift ? [shift] : []];
      const kept = inputs.map((t) => createTensor(gpu, `gradient of ${t.label}`, t.shape));
      const tape = new Tape();
      const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
      inputs.forEach((t) => tape.require(t));
      topExp(ctx, x, value, { ...options, shift });
      tape.backward();
      inputs.forEach((t, i) => copy(ctx, tape.grad(t)!, kept[i]));
      using plan = ctx.r.finish("largest exponentials");
      plan.run();
      const [got, dx, ds] = await readTensors(gpu, value, ...kept) as Float32Array[];
      const want = bruteForce(values, cols, options, shifts);
      assert.ok(Math.abs(got[0] - want) < CLOSE * want, `${got[0]} instead of ${want}`);
      const byX = differences((v) => bruteForce(v, cols, options, shifts), values);
      assert.ok(relativeError(dx, byX) < CLOSE);
      if (shifts) {
        assert.ok(
          relativeError(ds, differences((v) => bruteForce(values, cols, options, v), shifts)) < CLOSE,
        );
      }
      [...inputs, value, ...kept].forEach((t) => freeTensor(gpu, t));
    }),
  );
}

Deno.test("the 1000 largest of eight equal copies' terms are the 125 largest of one's", () => {
  const n = 3, m = Array.from(normals(300 * n, 5, 1)), own = Array.from(normals(n, 6, 1));
  const one = m.map((x, e) => Math.exp(x - own[e % n] + 3)).toSorted((a, b) => b - a);
  const copies = Array.from({ length: 8 }, () => one).flat().toSorted((a, b) => b - a);
  const mean = (all: number[]) => all.reduce((sum, x) => sum + x, 0) / all.length;
  const [merged, whole] = [mean(one.slice(0, 125)), mean(copies.slice(0, 1000))];
  assert.ok(Math.abs(merged - whole) < 1e-12 * whole);
});
