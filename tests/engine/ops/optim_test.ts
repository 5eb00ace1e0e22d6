import { deepStrictEqual, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import {
  adam,
  advance,
  clipByGlobalNorm,
  globalNorm,
  normPenalty,
  projectBall,
  projectLinf,
  sgd,
} from "../../../engine/ops/optim.ts";
import { createTensor, freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32, readTensors, writeBytes } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import {
  assertClose,
  dotTolerance,
  ELEMENTWISE,
  finiteDifference,
  normals,
  pack,
  ROUNDED,
} from "./_reference.ts";

interface AdamCase {
  weightDecay?: number;
  active?: number[];
  maxShardBytes?: number;
}

/** Seven steps on the device and in f64. The gradient changes on the device too: g ← g − θ/2 after each. */
async function compareAdam(gpu: Gpu, { weightDecay = 0, active, maxShardBytes }: AdamCase): Promise<void> {
  const [rows, width, steps, lr] = [5, 67, 7, 0.1];
  const n = rows * width;
  const theta = normals(n, 1);
  const g = normals(n, 2);
  g[3] = 0;
  const options = { maxShardBytes };
  const param = fromHost(gpu, "param", [rows, width], theta, options);
  const grad = fromHost(gpu, "grad", [rows, width], g, options);
  const [m, v] = ["m", "v"].map((name) => createTensor(gpu, name, [rows, width], options));
  const step = createTensor(gpu, "step", [1], { dtype: "u32" });
  const on = active && fromHost(gpu, "active", [rows], Uint32Array.from(active));
  const r = gpu.recorder();
  advance({ gpu, r }, step);
  adam({ gpu, r }, { param, grad, m, v, step, lr, weightDecay, active: on });
  // The gradient changes with the parameter: sgd takes it for a parameter here.
  sgd({ gpu, r }, { param: grad, grad: param, lr: 0.5 });
  using plan = r.finish("adam");
  plan.run(steps);
  const first = new Float64Array(n), second = new Float64Array(n);
  for (let t = 1; t <= steps; t++) {
    for (let i = 0; i < n; i++) {
      if (!active || active[Math.floor(i / width)]) {
        theta[i] *= 1 - lr * weightDecay;
        first[i] = 0.9 * first[i] + 0.1 * g[i];
        second[i] = 0.999 * second[i] + 0.001 * g[i] * g[i];
        const denominator = Math.sqrt(second[i]) / Math.sqrt(1 - 0.999 ** t) + 1e-8;
        theta[i] -= lr / (1 - 0.9 ** t) * first[i] / denominator;
      }
      g[i] -= 0.5 * theta[i];
    }
  }
  const found = await readTensors(gpu, param, m, v, step);
  // Each step adds a few roundings; m, v and θ feed the next step.
  assertClose(found[0], theta, steps * ELEMENTWISE, "param");
  assertClose(found[1], first, steps * ELEMENTWISE, "m");
  assertClose(found[2], second, steps * ELEMENTWISE, "v");
  deepStrictEqual(found[3], Uint32Array.of(steps));
  [param, grad, m, v, step, ...(on ? [on] : [])].forEach((t) => freeTensor(gpu, t));
}

Deno.test("adam() follows PyTorch's formula over seven steps", withGpu((gpu) => compareAdam(gpu, {})));

Deno.test(
  "adam() decays weights apart from the gradient when asked, across row shards",
  withGpu((gpu) => compareAdam(gpu, { weightDecay: 0.1, maxShardBytes: 2 * 67 * 4 })),
);

Deno.test(
  "adam() leaves rows and their moments alone when they are not active, across row shards",
  withGpu((gpu) => compareAdam(gpu, { active: [1, 0, 0, 1, 1], maxShardBytes: 2 * 67 * 4 })),
);

Deno.test(
  "adam() corrects its bias to f32 precision when the clock is 1 and when it is large",
  withGpu(async (gpu) => {
    const found = [];
    for (const clock of [0, 9, 499, 99_999]) {
      const param = createTensor(gpu, "param", [1]);
      const grad = fromHost(gpu, "grad", [1], [0.25]);
      const [m, v] = [createTensor(gpu, "m", [1]), createTensor(gpu, "v", [1])];
      const step = fromHost(gpu, "step", [1], Uint32Array.of(clock));
      const r = gpu.recorder();
      advance({ gpu, r }, step);
      adam({ gpu, r }, { param, grad, m, v, step, lr: 1 });
      using plan = r.finish("adam");
      plan.run();
      const t = clock + 1;
      const expected = -0.025 / (1 - 0.9 ** t) /
        (Math.sqrt(0.001 * 0.0625) / Math.sqrt(1 - 0.999 ** t) + 1e-8);
      found.push((await readF32(gpu, param))[0] / expected - 1);
      [param, grad, m, v, step].forEach((x) => freeTensor(gpu, x));
    }
    assertClose(found, [0, 0, 0, 0], ELEMENTWISE, "relative error");
  }),
);

Deno.test(
  "globalNorm() equals the f64 norm over tensors of several workgroups and shards",
  withGpu(async (gpu) => {
    const sizes = [1, 67, 4097, 8193];
    const hosts = sizes.map((n, i) => normals(n, i));
    const tensors: Tensor[] = hosts.map((h, i) =>
      fromHost(gpu, `g${i}`, [h.length, 1], h, { maxShardBytes: 20_000 })
    );
    const into = createTensor(gpu, "norm", [1]);
    const [kept] = await evaluate(gpu, (ctx) => (globalNorm(ctx, tensors, into), [into]));
    const squares = hosts.flatMap((h) => [...h]).reduce((sum, v) => sum + v * v, 0);
    assertClose(kept, [Math.sqrt(squares)], dotTolerance(1), "norm");
    [into, ...tensors].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "clipByGlobalNorm() scales down to the limit when the norm is above it and keeps bits when below",
  withGpu(async (gpu) => {
    const hosts = [normals(67, 1), normals(300, 2)];
    const norm = Math.sqrt(hosts.flatMap((h) => [...h]).reduce((sum, v) => sum + v * v, 0));
    for (const limit of [1.5, 1000]) {
      const grads = hosts.map((h, i) => fromHost(gpu, `g${i}`, [h.length], h));
      const r = gpu.recorder();
      clipByGlobalNorm({ gpu, r }, grads, limit);
      using plan = r.finish("clip");
      plan.run();
      const found = await readTensors(gpu, ...grads);
      found.forEach((f, i) => {
        const expected = hosts[i].map((v) => v * Math.min(1, limit / norm));
        assertClose(f as Float32Array, expected, limit > norm ? 0 : 4 * ROUNDED, `limit ${limit}`);
      });
      grads.forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "projectLinf() clamps to the box around the base when that is f32, f16 or bf16",
  withGpu(async (gpu) => {
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      const host = normals(3 * 67, 1);
      const center = normals(3 * 67, 2);
      const base = createTensor(gpu, "base", [3, 67], { dtype });
      const packed = dtype === "f32" ? undefined : pack(center, dtype);
      writeBytes(gpu, base, 0, packed?.bytes ?? new Uint8Array(Float32Array.from(center).buffer));
      const param = fromHost(gpu, "param", [3, 67], host);
      await evaluate(gpu, (ctx) => (projectLinf(ctx, param, base, 0.5), []));
      const around = packed?.values ?? center;
      const expected = host.map((v, i) => Math.min(Math.max(v, around[i] - 0.5), around[i] + 0.5));
      assertClose(await readF32(gpu, param), expected, ROUNDED, dtype);
      [base, param].forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "normPenalty() adds the f64 norm and its differences, and nothing at 0",
  withGpu(async (gpu) => {
    for (const width of [1, 7, 8, 9, 67]) {
      const host = normals(3 * width, width);
      host.fill(0, width, 2 * width);
      const c = Float64Array.of(0.5, 2, 1.25);
      const delta = fromHost(gpu, "delta", [3, width], host);
      const coefficient = fromHost(gpu, "coefficient", [3], c);
      const loss = fromHost(gpu, "loss", [3], [1, 1, 1]);
      const grad = fromHost(gpu, "grad", [3, width], new Float64Array(3 * width).fill(1));
      const r = gpu.recorder();
      normPenalty({ gpu, r }, { delta, coefficient, loss, grad });
      using plan = r.finish("penalty");
      plan.run();
      const penalties = (x: Float64Array) =>
        [0, 1, 2].map((e) => c[e] * Math.hypot(...x.subarray(e * width, (e + 1) * width)));
      const [losses, grads] = await readTensors(gpu, loss, grad) as Float32Array[];
      assertClose(losses, penalties(host).map((v) => v + 1), dotTolerance(width), "loss");
      const expected = finiteDifference((x) => penalties(x).reduce((a, b) => a + b), host).map((g) => g + 1);
      assertClose(grads, expected, dotTolerance(width), `gradient at width ${width}`);
      deepStrictEqual(grads.slice(width, 2 * width), new Float32Array(width).fill(1));
      [delta, coefficient, loss, grad].forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "projectBall() shrinks rows outside their ball, keeps the bits of the others and of inactive rows",
  withGpu(async (gpu) => {
    const width = 67;
    const host = normals(4 * width, 1);
    const norms = [0, 1, 2, 3].map((e) => Math.hypot(...host.subarray(e * width, (e + 1) * width)));
    const radii = [norms[0] / 2, norms[1] * 1.01, 0, norms[3] / 3];
    const radius = fromHost(gpu, "radius", [4], radii);
    const on = fromHost(gpu, "active", [4], Uint32Array.of(1, 1, 1, 0));
    for (const active of [undefined, on]) {
      const delta = fromHost(gpu, "delta", [4, width], host);
      await evaluate(gpu, (ctx) => (projectBall(ctx, delta, radius, active), []));
      const factors = [0.5, 1, 0, active ? 1 : 1 / 3];
      const found = await readF32(gpu, delta);
      factors.forEach((factor, e) => {
        const [begin, end] = [e * width, (e + 1) * width];
        const expected = host.subarray(begin, end).map((v) => v * factor);
        const tolerance = factor === 1 || factor === 0 ? 0 : dotTolerance(width);
        assertClose(found.subarray(begin, end), expected, tolerance, `row ${e}`);
      });
      freeTensor(gpu, delta);
    }
    [radius, on].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "optimisers name the tensors when they do not fit",
  withGpu((gpu) => {
    const [param, grad] = [createTensor(gpu, "w", [2, 3]), createTensor(gpu, "dw", [2, 2])];
    const step = createTensor(gpu, "step", [1], { dtype: "u32" });
    const ctx = { gpu, r: gpu.recorder() };
    throws(
      () => adam(ctx, { param, grad, m: param, v: param, step, lr: 1 }),
      /Cannot step w \[2, 3\] with dw \[2, 2\]: their sizes differ/,
    );
    throws(() => projectBall(ctx, param, step), /step \[1\] does not fit the rows of w \[2, 3\]: \[2\] does/);
    [param, grad, step].forEach((t) => freeTensor(gpu, t));
  }),
);
