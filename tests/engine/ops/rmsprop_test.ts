/** Centred RMSprop against PyTorch's formula in f64, and smoothed answers against the label-smoothed loss. */
import { throws } from "node:assert/strict";
import { rmsprop } from "../../../engine/ops/rmsprop.ts";
import { smoothedEntropy, smoothedTargets } from "../../../engine/ops/smoothed.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, ELEMENTWISE, normals } from "./_reference.ts";

Deno.test(
  "rmsprop() follows PyTorch's centred formula over seven steps, across row shards, and keeps its floor",
  withGpu(async (gpu) => {
    const rows = 5, width = 67, n = rows * width, steps = 7, lr = 0.05, floor = -1;
    const theta = normals(n, 1), square = new Float64Array(n), average = new Float64Array(n);
    const options = { maxShardBytes: 2 * width * 4 };
    const param = fromHost(gpu, "param", [rows, width], theta, options);
    const mean = createTensor(gpu, "mean", [rows, width], options);
    const variance = createTensor(gpu, "variance", [rows, width], options);
    for (let t = 1; t <= steps; t++) {
      const g = normals(n, 10 + t);
      g[3] = 0;
      const grad = fromHost(gpu, "grad", [rows, width], g, options);
      const r = gpu.recorder();
      rmsprop({ gpu, r }, { param, grad, mean, variance, lr, floor });
      using plan = r.finish("rmsprop");
      plan.run();
      for (let i = 0; i < n; i++) {
        square[i] = 0.99 * square[i] + 0.01 * g[i] * g[i];
        average[i] = 0.99 * average[i] + 0.01 * g[i];
        const step = lr * g[i] / (Math.sqrt(square[i] - average[i] ** 2) + 1e-8);
        theta[i] = Math.max(floor, theta[i] - step);
      }
      await readTensors(gpu, param);
      freeTensor(gpu, grad);
    }
    const [found, m, v] = await readTensors(gpu, param, mean, variance);
    assertClose(found, theta, steps * ELEMENTWISE, "param");
    assertClose(m, average, steps * ELEMENTWISE, "mean");
    assertClose(v, square.map((s, i) => s - average[i] ** 2), steps * ELEMENTWISE, "variance");
    [param, mean, variance].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "rmsprop() names the tensors when they do not fit",
  withGpu((gpu) => {
    const [param, grad] = [createTensor(gpu, "w", [2, 3]), createTensor(gpu, "dw", [2, 2])];
    const ctx = { gpu, r: gpu.recorder() };
    throws(
      () => rmsprop(ctx, { param, grad, mean: param, variance: param, lr: 1 }),
      /Cannot step w \[2, 3\] with dw \[2, 2\]: their sizes differ/,
    );
    [param, grad].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "smoothedTargets() with their entropy give the label-smoothed loss",
  withGpu(async (gpu) => {
    const vocab = 37, targets = [0, 36, 5], epsilon = 0.1;
    const ids = fromHost(gpu, "targets", [3], Uint32Array.from(targets));
    const [logQ] = await evaluate(gpu, (ctx) => [smoothedTargets(ctx, ids, vocab, epsilon)]);
    const own = targets.map((target, r) => {
      const z = normals(vocab, r), lse = Math.log(z.reduce((sum, x) => sum + Math.exp(x), 0));
      const logP = z.map((x) => x - lse), each = epsilon / (vocab - 1);
      const loss = (1 - epsilon - each) * -logP[target] - each * logP.reduce((a, b) => a + b, 0);
      let divergence = 0;
      for (let v = 0; v < vocab; v++) {
        const log = logQ[r * vocab + v];
        divergence += Math.exp(log) * (log - logP[v]);
      }
      return { loss, divergence };
    });
    const entropy = smoothedEntropy(vocab, epsilon);
    assertClose(
      own.map(({ divergence }) => divergence + entropy),
      own.map(({ loss }) => loss),
      ELEMENTWISE,
      "loss",
    );
    freeTensor(gpu, ids);
  }),
);
