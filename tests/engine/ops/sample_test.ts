import { deepStrictEqual, ok, throws } from "node:assert/strict";
import { sample, seededRandom } from "../../../engine/models/sample.ts";
import { sampleTopK } from "../../../engine/ops/sample.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { asGpuClass, evaluate, withGpu } from "../../_gpu.ts";
import { normals } from "./_reference.ts";

Deno.test(
  "sampleTopK() draws what the host draws when widths are odd and logits are equal, in both workgroup sizes",
  withGpu(async (gpu) => {
    const rows = 13, steps = 3;
    for (const width of [1, 7, 8, 9, 67, 2049]) {
      // Rounded, so that equal logits lie on both sides of the cut; row 1 has one value only.
      const z = Float32Array.from(normals(rows * width, width, 3), (v) => Math.round(2 * v) / 2);
      z.fill(-2, width, 2 * width);
      const host = seededRandom(width);
      const u = Float32Array.from({ length: rows * steps }, host);
      // Row r is at step r mod steps.
      const start = Uint32Array.from({ length: rows }, (_, r) => 4 + r);
      const positions = start.map((s, r) => s - 1 + r % steps);
      const tensors = [
        fromHost(gpu, "logits", [rows, width], z),
        fromHost(gpu, "uniforms", [steps, rows], u),
        fromHost(gpu, "positions", [rows], positions),
        fromHost(gpu, "start", [rows], start),
        createTensor(gpu, "token", [rows], { dtype: "u32" }),
        createTensor(gpu, "token", [rows], { dtype: "u32" }),
      ];
      const [logits, uniforms, at, from, small, large] = tensors;
      for (const k of [1, 2, 5, 64]) {
        for (
          const { temperature, topP } of [{ temperature: 1 }, { temperature: 0.3, topP: 0.7 }, {
            temperature: 5,
            topP: 0,
          }]
        ) {
          const draw = { k, temperature, topP, uniforms, positions: at, start: from };
          await evaluate(gpu, (ctx) => {
            sampleTopK(ctx, logits, draw, small);
            sampleTopK(asGpuClass(ctx), logits, draw, large);
            return [];
          });
          const expected = Uint32Array.from(
            { length: rows },
            (_, r) =>
              sample(
                z.subarray(r * width, (r + 1) * width),
                { temperature, topK: k, topP },
                () => u[(r % steps) * rows + r],
              ),
          );
          const [a, b] = await readTensors(gpu, small, large);
          deepStrictEqual([a, b], [expected, expected], `width ${width}, k ${k}, temperature ${temperature}`);
        }
      }
      tensors.forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "sampleTopK() draws each of the k with its probability and no other",
  withGpu(async (gpu) => {
    const width = 301, draws = 20000, k = 6, temperature = 0.8;
    const row = Float32Array.from(normals(width, 4, 2));
    // One row of logits many times.
    const rows = 500, steps = draws / rows;
    const z = new Float32Array(rows * width);
    for (let r = 0; r < rows; r++) z.set(row, r * width);
    const logits = fromHost(gpu, "logits", [rows, width], z);
    const uniforms = fromHost(
      gpu,
      "uniforms",
      [steps, rows],
      Float32Array.from({ length: draws }, seededRandom(5)),
    );
    const start = fromHost(gpu, "start", [rows], new Uint32Array(rows).fill(1));
    const into = createTensor(gpu, "token", [rows], { dtype: "u32" });
    const counts = new Map<number, number>();
    for (let step = 0; step < steps; step++) {
      const positions = fromHost(gpu, "positions", [rows], new Uint32Array(rows).fill(step));
      const r = gpu.recorder();
      sampleTopK({ gpu, r }, logits, { k, temperature, uniforms, positions, start }, into);
      using plan = r.finish("draw");
      plan.run();
      for (const id of (await readTensors(gpu, into))[0]) counts.set(id, (counts.get(id) ?? 0) + 1);
      freeTensor(gpu, positions);
    }
    const kept = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, k);
    const total = kept.reduce((sum, id) => sum + Math.exp(row[id] / temperature), 0);
    deepStrictEqual([...counts.keys()].filter((id) => !kept.includes(id)), []);
    for (const id of kept) {
      const p = Math.exp(row[id] / temperature) / total;
      // Five standard deviations of a share of 20,000 draws.
      const allowed = 5 * Math.sqrt(p * (1 - p) / draws);
      ok(Math.abs((counts.get(id) ?? 0) / draws - p) <= allowed, `token ${id}`);
    }
    [logits, uniforms, start, into].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "sampleTopK() passes over NaN, gives 0 when a row has nothing else, and stays at the last random number",
  withGpu(async (gpu) => {
    const z = [NaN, -5, NaN, -5, NaN, NaN, NaN, NaN, 3, 3, 3, 3];
    const logits = fromHost(gpu, "logits", [3, 4], z);
    const uniforms = fromHost(gpu, "uniforms", [1, 3], [0.999, 0.5, 0.6]);
    const u32 = (label: string, values: number[]) => fromHost(gpu, label, [3], Uint32Array.from(values));
    // The third row has gone on for longer than there are numbers.
    const [positions, start, into] = [
      u32("positions", [0, 0, 9]),
      u32("start", [1, 1, 1]),
      u32("into", [9, 9, 9]),
    ];
    const draw = { k: 4, temperature: 1e-30, uniforms, positions, start };
    await evaluate(gpu, (ctx) => (sampleTopK(ctx, logits, draw, into), []));
    deepStrictEqual([...(await readTensors(gpu, into))[0]], [3, 0, 2]);
    const ctx = { gpu, r: gpu.recorder() };
    for (const k of [0, 65, 1.5]) {
      throws(
        () => sampleTopK(ctx, logits, { ...draw, k }, into),
        /Cannot draw from the .* 1 to 64 are possible/,
      );
    }
    throws(
      () => sampleTopK(ctx, logits, draw, logits),
      /Cannot draw from logits \[3, 4\] into .* 3 rows are needed/,
    );
    [logits, uniforms, positions, start, into].forEach((t) => freeTensor(gpu, t));
  }),
);
