import assert from "node:assert/strict";
import { seededRandom } from "../../../engine/models/sample.ts";
import type { Activation } from "../../../engine/ops/activation.ts";
import { Tape } from "../../../engine/ops/context.ts";
import { NO_ENTRY } from "../../../engine/ops/lookup.ts";
import { copy } from "../../../engine/ops/elementwise.ts";
import { margins, type MarginState } from "../../../engine/ops/margins.ts";
import { maskedStep } from "../../../engine/ops/optim.ts";
import { activatedDistance, largestAbove, spanScores } from "../../../engine/ops/side_memory.ts";
import { createTensor, freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32, readTensors } from "../../../engine/tensor/transfer.ts";
import { asGpuClass, checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals, ROUNDED } from "./_reference.ts";

const SILU = (x: number) => x / (1 + Math.exp(-x));
const RELU = (x: number) => Math.max(x, 0);
const u32 = (...values: number[]) => Uint32Array.from(values);

Deno.test(
  "activatedDistance() is the length of φ(o + δ) − φ(o), and sends its gradient to δ",
  withGpu(async (gpu) => {
    for (const [kind, act] of [["silu", SILU], ["relu", RELU]] as [Activation, typeof SILU][]) {
      for (const width of [5, 100]) {
        for (const RESIDUAL of [false, true]) {
          const shape = [3, width], n = 3 * width;
          const y = normals(n, 1), residual = normals(n, 2);
          await checkOp(gpu, {
            inputs: {
              y: { shape, values: y },
              residual: { shape, values: residual },
              delta: { shape, values: normals(n, 3) },
            },
            op: (ctx, { y, residual, delta }) =>
              activatedDistance(asGpuClass(ctx), { y, delta, kind, ...RESIDUAL ? { residual } : {} }),
            reference: ({ y, residual, delta }) =>
              Float64Array.from([0, 1, 2], (r) => {
                let sum = 0;
                for (let i = r * width; i < (r + 1) * width; i++) {
                  const o = y[i] - (RESIDUAL ? residual[i] : 0);
                  sum += (act(o + delta[i]) - act(o)) ** 2;
                }
                return Math.sqrt(sum);
              }),
            wants: ["delta"],
            tolerance: dotTolerance(width),
            label: `${kind}, width ${width}, residual ${RESIDUAL}`,
          });
        }
      }
    }
  }),
);

Deno.test(
  "spanScores() averages the rows of each text, takes the farthest of long ones, and passes gradients back",
  withGpu(async (gpu) => {
    const d = normals(12, 5).map(Math.abs);
    const spans = fromHost(gpu, "spans", [2, 4], u32(0, 2, 0, 0, 2, 3, 0, 0));
    const sequence = fromHost(gpu, "sequence", [6], u32(0, 0, 1, 1, 1, 1));
    const where = { spans, sequence };
    const mean = (v: ArrayLike<number>, rows: number[], j: number) =>
      rows.reduce((sum, r) => sum + v[2 * r + j], 0) / rows.length;
    await checkOp(gpu, {
      inputs: { d: { shape: [6, 2], values: d } },
      op: (ctx, { d }) => spanScores(ctx, d, where),
      reference: ({ d }) =>
        Float64Array.from([[0, 1], [2, 3, 4]].flatMap((rows) => [mean(d, rows, 0), mean(d, rows, 1)])),
      tolerance: ROUNDED,
    });
    // Two runs of rows, the first shared; more than 2 rows count by the farthest.
    const shared = fromHost(gpu, "spans", [2, 4], u32(0, 2, 0, 0, 0, 2, 4, 1));
    const x = fromHost(gpu, "d", [6, 2], d);
    const [scores] = await evaluate(gpu, (ctx) => [spanScores(ctx, x, { spans: shared, sequence }, 2)]);
    const far = (j: number) => Math.max(d[j], d[2 + j], d[8 + j]);
    assertClose(scores, Float64Array.of(mean(d, [0, 1], 0), mean(d, [0, 1], 1), far(0), far(1)), ROUNDED, "");
    [spans, sequence, shared, x].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "largestAbove() takes the largest score among those that reach their threshold",
  withGpu(async (gpu) => {
    const score = fromHost(gpu, "score", [4, 3], Float32Array.of(1, 2, 3, 1, 9, 3, 0.5, 1, 2.9, 5, 2, 5));
    const threshold = fromHost(gpu, "threshold", [3], Float32Array.of(1, 10, 3));
    const choice = createTensor(gpu, "choice", [4], { dtype: "u32" });
    const ctx = { gpu, r: gpu.recorder() };
    largestAbove(ctx, score, threshold, choice);
    using plan = ctx.r.finish("choose");
    plan.run();
    assert.deepEqual([...(await readTensors(gpu, choice))[0]], [2, 2, NO_ENTRY, 0]);
    [score, threshold, choice].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "margins(): hinges over positive entries, their gradients, and the stop after two still losses",
  withGpu(async (gpu) => {
    const limits = { alpha: 1, beta: 4, gamma: 2, still: 1e-4, low: 0.02 };
    const positive = (values: number[]) => {
      const some = values.filter((v) => v > 0);
      return some.reduce((sum, v) => sum + v, 0) / (some.length || 1);
    };
    const loss = (D: Float64Array | number[]) => {
      const out = D.at(-1)!, inside = [...D.slice(0, -1)];
      return positive(inside.map((d) => out - d + limits.gamma)) + positive([out - limits.alpha]) +
        positive(inside.map((d) => limits.beta - d));
    };
    for (const D of [[3, 5, 1, 2.5], [9, 8, 7, 0.5], [9, 3.5, 7, 0.5], [1, 2, 3, 2]]) {
      const own: Tensor[] = [];
      const put = (values: Float32Array | Uint32Array, shape = [values.length]) => {
        const t = fromHost(gpu, "t", shape, values);
        own.push(t);
        return t;
      };
      const state: MarginState = {
        history: put(new Float32Array(8), [4, 2]),
        progress: put(Float32Array.of(1e9, 0, 0)),
        flags: put(u32(0, 0)),
        done: put(u32(0)),
      };
      const dist = put(Float32Array.from(D)), terms = put(Float32Array.of(0.004, 0.006));
      const pulled = put(new Float32Array(D.length));
      const tape = new Tape();
      const ctx = { gpu, r: gpu.recorder(), tape };
      tape.require(dist);
      margins(ctx, dist, terms, state, limits);
      copy(ctx, tape.grad(dist)!, pulled);
      using plan = ctx.r.finish("margins");
      plan.run();
      const [pull, history, progress] = await readTensors(gpu, pulled, state.history, state.progress);
      const want = D.map((_, i) => {
        const at = (h: number) => loss(D.map((d, j) => i === j ? d + h : d));
        return (at(1e-6) - at(-1e-6)) / 2e-6;
      });
      assertClose(pull as Float32Array, Float64Array.from(want), 1e-6, `pull at ${D}`);
      assertClose(
        history.slice(0, 2) as Float32Array,
        Float64Array.of(0.01, loss(D)),
        1e-6,
        `losses at ${D}`,
      );
      assert.ok(Math.abs(progress[2] - (D[0] + D[1] + D[2]) / 3) < 1e-6);
      plan.run();
      assert.deepEqual([...(await readTensors(gpu, state.done))[0]], [0]);
      plan.run();
      // Two losses are known and equal; they are low only where no margin is hurt.
      const [done, flags] = await readTensors(gpu, state.done, state.flags);
      assert.deepEqual([done[0], flags[0]], [loss(D) === 0 ? 1 : 0, 3]);
      own.forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "maskedStep() moves the elements of the seeded mask only, with decay and within the bound",
  withGpu(async (gpu) => {
    const n = 1000, shape = [20, 50], f32 = Math.fround;
    const [x, g, w] = [1, 2, 3].map((seed) => Float32Array.from(normals(n, seed)));
    const tensors = [x, g, w].map((values) => fromHost(gpu, "t", shape, values));
    const [param, grad, base] = tensors;
    const ctx = { gpu, r: gpu.recorder() };
    maskedStep(ctx, { param, grad, base, lr: 0.5, decay: 0.1, bound: 0.9, mask: { seed: 77, share: 0.3 } });
    using plan = ctx.r.finish("step");
    plan.run();
    const random = seededRandom(77);
    const inside = Array.from(x, () => random() < 0.3);
    const after = await readF32(gpu, param);
    const want = Float64Array.from(
      x,
      (v, i) => inside[i] ? Math.max(-0.9, Math.min(0.9, v - 0.5 * (g[i] + 0.1 * (w[i] + v)))) : v,
    );
    assertClose(after, want, 1e-6, "step");
    assert.ok(x.every((v, i) => inside[i] || v === after[i]) && after.some((v) => v === f32(0.9)));
    assert.ok(Math.abs(inside.filter(Boolean).length / n - 0.3) < 0.05);
    tensors.forEach((t) => freeTensor(gpu, t));
  }),
);
