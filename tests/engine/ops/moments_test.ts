import { deepStrictEqual } from "node:assert/strict";
import { countRows, keptRows, mergeMoments, standardise } from "../../../engine/ops/moments.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";
import { assertClose, normals } from "./_reference.ts";

const WIDTH = 11;
const CHUNKS = [5, 1, 7];

/** The authors' update, one row after another, in f64 (memory-and-meta guide section 2.2, step 4). */
function rowLoop(rows: Float64Array[]): { mean: Float64Array; scatter: Float64Array } {
  const mean = new Float64Array(WIDTH), scatter = new Float64Array(WIDTH);
  rows.forEach((row, i) =>
    row.forEach((x, c) => {
      const before = mean[c];
      mean[c] += (x - before) / (i + 1);
      scatter[c] += (x - before) * (x - mean[c]);
    })
  );
  return { mean, scatter };
}

/** Chunks of pairs; the second row of the first has no u, the third row of the last no δ. */
function pairs() {
  return CHUNKS.map((rows, chunk) => {
    const u = normals(rows * WIDTH, chunk + 1).map((x) => 3 + x), d = normals(rows * 3, chunk + 11);
    if (chunk === 0) u.fill(0, WIDTH, 2 * WIDTH);
    if (chunk === 2) d.fill(0, 6, 9);
    const kept = Array.from(
      { length: rows },
      (_, r) => !(chunk === 0 && r === 1) && !(chunk === 2 && r === 2),
    );
    return { u, d, rows, kept };
  });
}

Deno.test(
  "mergeMoments() takes chunks in as one row after the other would, and rows of nothing not at all",
  withGpu(async (gpu) => {
    const chunks = pairs();
    const count = createTensor(gpu, "count", [1], { dtype: "u32" });
    const moments = {
      mean: createTensor(gpu, "mean", [WIDTH]),
      scatter: createTensor(gpu, "scatter", [WIDTH]),
    };
    const given = chunks.map(({ u, d, rows }) => [
      fromHost(gpu, "u", [rows, WIDTH], u),
      fromHost(gpu, "d", [rows, 3], d),
    ]);
    const h = createTensor(gpu, "h", [8, WIDTH + 2]);
    const ctx = { gpu, r: gpu.recorder() };
    for (const [u, d] of given) {
      const keep = keptRows(ctx, u, d);
      mergeMoments(ctx, u, keep, count, moments);
      countRows(ctx, keep, count);
      // The last chunk is standardised by all of them.
      if (d === given[2][1]) standardise(ctx, u, keep, count, moments, { h, row: 1, first: 2 }, 1e3);
    }
    using plan = ctx.r.finish("moments");
    plan.run();
    const [n, mean, scatter, got] = await readTensors(gpu, count, moments.mean, moments.scatter, h);
    const all = chunks.flatMap(({ u, kept }) =>
      kept.flatMap((keep, r) => keep ? [u.subarray(r * WIDTH, (r + 1) * WIDTH)] : [])
    );
    const want = rowLoop(all);
    deepStrictEqual([...n], [all.length]);
    assertClose(mean, want.mean, 1e-6, "mean");
    assertClose(scatter, want.scatter, 2e-6, "scatter");
    const expected = new Float64Array(8 * (WIDTH + 2));
    chunks[2].kept.forEach((keep, r) => {
      for (let c = 0; keep && c < WIDTH; c++) {
        const std = Math.sqrt(want.scatter[c] / (all.length - 1));
        expected[(1 + r) * (WIDTH + 2) + 2 + c] = (chunks[2].u[r * WIDTH + c] - want.mean[c]) / (std + 1e-7);
      }
    });
    assertClose(got, expected, 4e-6, "standardised");
    [count, moments.mean, moments.scatter, h, ...given.flat()].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "standardise() keeps a column that never moved before within its bounds",
  withGpu(async (gpu) => {
    const [x, keep, count, mean, scatter] = [
      fromHost(gpu, "x", [2, 1], Float32Array.of(1, -1)),
      fromHost(gpu, "keep", [2], Uint32Array.of(1, 1)),
      fromHost(gpu, "count", [1], Uint32Array.of(9)),
      createTensor(gpu, "mean", [1]),
      createTensor(gpu, "scatter", [1]),
    ];
    const h = createTensor(gpu, "h", [2, 1]);
    const ctx = { gpu, r: gpu.recorder() };
    standardise(ctx, x, keep, count, { mean, scatter }, { h, row: 0, first: 0 }, 1e3);
    using plan = ctx.r.finish("standardised");
    plan.run();
    deepStrictEqual([...(await readTensors(gpu, h))[0]], [1000, -1000]);
    [x, keep, count, mean, scatter, h].forEach((t) => freeTensor(gpu, t));
  }),
);
