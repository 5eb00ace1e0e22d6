import { deepStrictEqual, throws } from "node:assert/strict";
import { rotary, rotaryFrequencies, rotaryTable } from "../../../engine/ops/rotary.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../../engine/tensor/transfer.ts";
import { checkOp, withGpu } from "../../_gpu.ts";
import { assertClose, normals, ROUNDED } from "./_reference.ts";

const CASES = [
  { rows: 1, heads: 1, headDim: 2, rotaryDim: 2, interleaved: false },
  { rows: 5, heads: 3, headDim: 14, rotaryDim: 14, interleaved: false },
  { rows: 5, heads: 3, headDim: 14, rotaryDim: 6, interleaved: false },
  { rows: 7, heads: 2, headDim: 10, rotaryDim: 4, interleaved: true },
  { rows: 17, heads: 2, headDim: 16, rotaryDim: 16, interleaved: true },
];

Deno.test(
  "rotary() equals the f64 rotation and its differences when heads turn whole, partly, in pairs or halves",
  withGpu(async (gpu) => {
    for (const shape of CASES) {
      const { rows, heads, headDim, rotaryDim, interleaved } = shape;
      const half = rotaryDim / 2;
      const theta = 100;
      const at = Uint32Array.from({ length: rows }, (_, i) => (i * 7 + 3) % 23);
      const table = rotaryTable(gpu, { headDim, rotaryDim, theta, maxPositions: 23 });
      const positions = fromHost(gpu, "positions", [rows], at);
      await checkOp(gpu, {
        inputs: { x: { shape: [rows, heads * headDim], values: normals(rows * heads * headDim, 1) } },
        op: (ctx, { x }) => rotary(ctx, x, table, positions, shape),
        reference: ({ x }) => {
          const y = x.slice();
          for (let r = 0; r < rows; r++) {
            for (let h = 0; h < heads; h++) {
              const start = (r * heads + h) * headDim;
              for (let j = 0; j < half; j++) {
                const angle = at[r] * theta ** (-2 * j / rotaryDim);
                const [a, b] = interleaved ? [2 * j, 2 * j + 1] : [j, j + half];
                y[start + a] = x[start + a] * Math.cos(angle) - x[start + b] * Math.sin(angle);
                y[start + b] = x[start + a] * Math.sin(angle) + x[start + b] * Math.cos(angle);
              }
            }
          }
          return y;
        },
        // Angles up to 22 radians, rounded to f32 as the reference models do: 22·2⁻²³ each.
        tolerance: 22 * 2 ** -23 + 4 * ROUNDED,
        label: JSON.stringify(shape),
      });
      [table, positions].forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "rotaryTable() holds cosines and sines of f32 angles",
  withGpu(async (gpu) => {
    const options = { headDim: 8, rotaryDim: 4, theta: 10000, maxPositions: 3 };
    const table = rotaryTable(gpu, options);
    const [c, s] = [Math.cos(0.01), Math.sin(0.01)];
    const expected = [1, 0, 1, 0, Math.cos(1), Math.sin(1), c, s, Math.cos(2), Math.sin(2)];
    assertClose((await readF32(gpu, table)).slice(0, 10), expected, ROUNDED, "table");
    deepStrictEqual(table.shape, [3, 2, 2]);
    freeTensor(gpu, table);
  }),
);

Deno.test("rotaryFrequencies() divides all by the factor when scaling is linear", () => {
  const base = { headDim: 8, rotaryDim: 8, theta: 10000, maxPositions: 1 };
  const scaled = rotaryFrequencies({ ...base, scaling: { kind: "linear", factor: 4 } });
  assertClose(scaled, [0.25, 0.025, 0.0025, 0.00025], ROUNDED, "frequencies");
});

Deno.test("rotaryFrequencies() keeps short waves, stretches long ones and blends between when llama3", () => {
  // theta 10⁴ and 8 elements: wavelengths 6.28, 62.8, 628, 6283 positions. With 1000 original positions,
  // below 1000/4 = 250 is kept, above 1000/1 is divided by 8, and 628 is blended: (1000/628.3 − 1)/3.
  const frequencies = rotaryFrequencies({
    headDim: 8,
    rotaryDim: 8,
    theta: 10000,
    maxPositions: 1,
    scaling: { kind: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 1000 },
  });
  const smooth = (1000 / (200 * Math.PI) - 1) / 3;
  const expected = [1, 0.1, 0.01 * ((1 - smooth) / 8 + smooth), 0.001 / 8];
  assertClose(frequencies, expected, ROUNDED, "frequencies");
});

Deno.test(
  "rotary() explains what fits when the heads do not",
  withGpu((gpu) => {
    throws(
      () => rotaryTable(gpu, { headDim: 8, rotaryDim: 5, theta: 1e4, maxPositions: 1 }),
      /Cannot rotate 5 elements of heads of 8/,
    );
    const [q, positions] = [createTensor(gpu, "q", [2, 12]), createTensor(gpu, "positions", [2])];
    const table = rotaryTable(gpu, { headDim: 8, rotaryDim: 8, theta: 1e4, maxPositions: 2 });
    const ctx = { gpu, r: gpu.recorder() };
    throws(
      () => rotary(ctx, q, table, positions, { heads: 2, headDim: 8, rotaryDim: 8 }),
      /Cannot rotate q \[2, 12\] as 2 heads of 8/,
    );
    [q, positions, table].forEach((t) => freeTensor(gpu, t));
  }),
);
