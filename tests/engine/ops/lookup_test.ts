import assert from "node:assert/strict";
import { type Choice, chooseRows, distances, nearest, NO_ENTRY } from "../../../engine/ops/lookup.ts";
import { keepBest } from "../../../engine/ops/optim.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { checkOp, evaluate, withGpu } from "../../_gpu.ts";
import { assertClose, dotTolerance, normals, ROUNDED } from "./_reference.ts";

const u32 = (...ids: number[]) => Uint32Array.from(ids);

Deno.test(
  "distances() and nearest() find the key within whose radius a row lies, the first among equals",
  withGpu(async (gpu) => {
    for (const width of [1, 37, 256]) {
      const [n, count] = [5, 3];
      const x = normals(6 * width, 1), keys = normals(n * width, 2).map((v) => v + 9);
      const rows = [4, 0, 5];
      // Row 4 is key 3 and key 1, row 0 near key 2, row 5 nobody's.
      for (let c = 0; c < width; c++) {
        keys[width + c] = keys[3 * width + c] = x[4 * width + c];
        keys[2 * width + c] = x[c] + 0.1 / Math.sqrt(width);
        x[5 * width + c] = 50;
      }
      const tensors = {
        x: fromHost(gpu, "x", [6, width], x),
        keys: fromHost(gpu, "keys", [n, width], keys),
        index: fromHost(gpu, "index", [count], u32(...rows)),
        radius: fromHost(gpu, "radius", [n], new Float32Array(n).fill(0.2)),
        choice: createTensor(gpu, "choice", [count], { dtype: "u32" }),
      };
      const [d] = await evaluate(gpu, (ctx) => {
        const d = distances(ctx, tensors.x, tensors.index, tensors.keys);
        nearest(ctx, d, tensors.radius, tensors.choice);
        return [d];
      });
      const want = Float64Array.from(
        rows.flatMap((r) =>
          Array.from({ length: n }, (_, j) => {
            let sum = 0;
            for (let c = 0; c < width; c++) {
              sum += (Math.fround(x[r * width + c]) - Math.fround(keys[j * width + c])) ** 2;
            }
            return Math.sqrt(sum);
          })
        ),
      );
      assertClose(d, want, dotTolerance(width), `width ${width}`);
      const [choice] = await readTensors(gpu, tensors.choice);
      assert.deepEqual([...choice], [1, 2, NO_ENTRY]);
      Object.values(tensors).forEach((t) => freeTensor(gpu, t));
    }
  }),
);

Deno.test(
  "chooseRows() takes the table's row where a sequence chose, and sends gradients to whom it took from",
  withGpu(async (gpu) => {
    const [rows, width] = [6, 37];
    const sequence = [0, 0, 1, 1, 2, 2], place = [1, 2, 1, 2, 2, 4], choice = [1, NO_ENTRY, 0];
    const tensors = {
      sequence: fromHost(gpu, "sequence", [rows], u32(...sequence)),
      place: fromHost(gpu, "place", [rows], u32(...place)),
      choice: fromHost(gpu, "choice", [3], u32(...choice)),
    };
    for (const which of [undefined, 1, NO_ENTRY]) {
      for (const places of [7, 2]) {
        const how: Choice = { ...tensors, places, which };
        const fires = (r: number) => {
          const chosen = choice[sequence[r]];
          return (which === undefined || which === NO_ENTRY ? chosen !== NO_ENTRY : chosen === which) &&
            (place[r] & places) > 0;
        };
        const entries = which === undefined ? 2 : rows;
        await checkOp(gpu, {
          inputs: {
            y: { shape: [rows, width], values: normals(rows * width, 1) },
            table: { shape: [entries, width], values: normals(entries * width, 2) },
            residual: { shape: [rows, width], values: normals(rows * width, 3) },
          },
          op: (ctx, { y, table, residual }) => chooseRows(ctx, y, table, how, residual),
          reference: ({ y, table, residual }) =>
            y.map((v, i) => {
              const r = Math.floor(i / width);
              if (!fires(r)) return v;
              return table[(which === undefined ? choice[sequence[r]] : r) * width + i % width] + residual[i];
            }),
          tolerance: ROUNDED,
          label: `which ${which}, places ${places}`,
        });
      }
    }
    Object.values(tensors).forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "keepBest() keeps a row while its loss falls",
  withGpu(async (gpu) => {
    const [best, kept] = [
      fromHost(gpu, "best", [2], Float32Array.of(9, 9)),
      createTensor(gpu, "kept", [2, 3]),
    ];
    for (const [loss, x] of [[[5, 8], 1], [[6, 7], 2], [[4, 7], 3]] as [number[], number][]) {
      const tensors = [
        fromHost(gpu, "loss", [2], Float32Array.from(loss)),
        fromHost(gpu, "x", [2, 3], new Float32Array(6).fill(x)),
      ];
      const ctx = { gpu, r: gpu.recorder() };
      keepBest(ctx, tensors[0], tensors[1], best, kept);
      using plan = ctx.r.finish("keep");
      plan.run();
      await readTensors(gpu, best);
      tensors.forEach((t) => freeTensor(gpu, t));
    }
    assert.deepEqual((await readTensors(gpu, best, kept)).map((v) => [...v]), [[4, 7], [3, 3, 3, 2, 2, 2]]);
    [best, kept].forEach((t) => freeTensor(gpu, t));
  }),
);
