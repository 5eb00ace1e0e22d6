import { deepStrictEqual, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { AGAIN, keepLargest, trackSensitivity } from "../../../engine/ops/importance.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";
import { assertClose, normals, ROUNDED } from "./_reference.ts";

Deno.test(
  "trackSensitivity() smooths |θ·g| and its deviation over steps",
  withGpu(async (gpu) => {
    const n = 300, beta1 = 0.85, beta2 = 0.7;
    const param = normals(n, 1), grad = normals(n, 2);
    const [p, g] = [fromHost(gpu, "p", [n], param), fromHost(gpu, "g", [n], grad)];
    const mean = createTensor(gpu, "mean", [n]), spread = createTensor(gpu, "spread", [n]);
    const r = gpu.recorder();
    trackSensitivity({ gpu, r }, { param: p, grad: g, beta1, beta2 }, { mean, spread });
    using plan = r.finish("sensitivity");
    plan.run(3);
    const [m, s] = await readTensors(gpu, mean, spread) as Float32Array[];
    const wantMean = new Float64Array(n), wantSpread = new Float64Array(n);
    for (let step = 0; step < 3; step++) {
      for (let i = 0; i < n; i++) {
        const now = Math.abs(param[i] * grad[i]);
        wantMean[i] = beta1 * wantMean[i] + (1 - beta1) * now;
        wantSpread[i] = beta2 * wantSpread[i] + (1 - beta2) * Math.abs(now - wantMean[i]);
      }
    }
    // Three steps of a few roundings, and 1 − β in f32.
    assertClose(m, wantMean, 6 * ROUNDED, "mean");
    assertClose(s, wantSpread, 6 * ROUNDED, "spread");
    [p, g, mean, spread].forEach((t) => freeTensor(gpu, t));
  }),
);

/** The values and the mask after `step` of a schedule. */
async function pruned(gpu: Gpu, scores: number[], cuts: number[], step: number, keptBefore?: number[]) {
  const n = scores.length;
  const u32 = (label: string, values: number[]) =>
    fromHost(gpu, label, [values.length], Uint32Array.from(values));
  const t = {
    scores: fromHost(gpu, "scores", [n], scores),
    values: fromHost(gpu, "values", [n], scores.map((_, i) => i + 1)),
    kept: u32("kept", keptBefore ?? Array(n).fill(1)),
    cuts: u32("cuts", cuts),
    clock: u32("clock", [step]),
  };
  const r = gpu.recorder();
  keepLargest({ gpu, r }, t);
  using plan = r.finish("prune");
  plan.run();
  const [values, kept] = await readTensors(gpu, t.values, t.kept);
  Object.values(t).forEach((x) => freeTensor(gpu, x));
  return [[...values], [...kept]];
}

Deno.test(
  "keepLargest() zeroes the values with the least scores by its schedule",
  withGpu(async (gpu) => {
    const scores = [5, 1, 4, 2, 3];
    deepStrictEqual(await pruned(gpu, scores, [0, 2], 1), [[1, 2, 3, 4, 5], [1, 1, 1, 1, 1]]);
    deepStrictEqual(await pruned(gpu, scores, [0, 2], 2), [[1, 0, 3, 0, 5], [1, 0, 1, 0, 1]]);
    // Past the end the last step holds; AGAIN looks at the mask, not at the scores.
    deepStrictEqual(await pruned(gpu, scores, [0, 2], 9), [[1, 0, 3, 0, 5], [1, 0, 1, 0, 1]]);
    deepStrictEqual(await pruned(gpu, scores, [AGAIN], 1, [0, 1, 1, 1, 1]), [[0, 2, 3, 4, 5], [
      0,
      1,
      1,
      1,
      1,
    ]]);
    // Equal scores go together, as with peft's threshold.
    deepStrictEqual(await pruned(gpu, [1, 2, 1, 3], [1], 1), [[0, 2, 0, 4], [0, 1, 0, 1]]);
  }),
);

Deno.test(
  "keepLargest() cuts exactly as many as asked for of many values with different scores",
  withGpu(async (gpu) => {
    const n = 1000;
    const scores = [...normals(n, 5)];
    const [values, kept] = await pruned(gpu, scores, [377], 1);
    const least = new Set([...scores.keys()].sort((a, b) => scores[a] - scores[b]).slice(0, 377));
    deepStrictEqual(kept, scores.map((_, i) => least.has(i) ? 0 : 1));
    deepStrictEqual(values, scores.map((_, i) => least.has(i) ? 0 : i + 1));
  }),
);

Deno.test(
  "trackSensitivity() and keepLargest() name the tensors when sizes differ",
  withGpu((gpu) => {
    const t = (label: string, n: number) => createTensor(gpu, label, [n]);
    const a = t("a", 3), b = t("b", 4);
    const ctx = { gpu, r: gpu.recorder() };
    const state = { mean: a, spread: a };
    throws(
      () => trackSensitivity(ctx, { param: a, grad: b, beta1: 0.5, beta2: 0.5 }, state),
      /Cannot weigh a \[3\] by b \[4\]/,
    );
    throws(
      () => keepLargest(ctx, { scores: b, values: a, kept: a, cuts: a, clock: a }),
      /Cannot prune a \[3\] by b \[4\]/,
    );
    [a, b].forEach((x) => freeTensor(gpu, x));
  }),
);
