import assert from "node:assert/strict";
import { nearestInCluster, ownColumns } from "../../../engine/ops/clusters.ts";
import { NO_ENTRY } from "../../../engine/ops/lookup.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { checkOp, withGpu } from "../../_gpu.ts";
import { normals, ROUNDED } from "./_reference.ts";

const u32 = (...values: number[]) => Uint32Array.from(values);

Deno.test(
  "nearestInCluster() takes the nearest member of the nearest cluster, within its radius",
  withGpu(async (gpu) => {
    // Members 0 and 2 are one cluster, 1 and 3 another.
    const tensors = {
      toCenter: fromHost(gpu, "c", [4, 4], Float32Array.of(1, 2, 1, 2, 2, 1, 2, 1, 3, 9, 3, 9, 1, 1, 1, 1)),
      toKey: fromHost(gpu, "k", [4, 4], Float32Array.of(5, 0, 4, 0, 0, 6, 0, 6, 1, 1, 1, 1, 7, 1, 8, 1)),
      radius: fromHost(gpu, "r", [4], Float32Array.of(2, 1.5, 2, 1.5)),
      cluster: fromHost(gpu, "cluster", [4], u32(0, 1, 0, 1)),
      choice: createTensor(gpu, "choice", [4], { dtype: "u32" }),
    };
    const { toCenter, toKey, choice } = tensors;
    const ctx = { gpu, r: gpu.recorder() };
    nearestInCluster(ctx, toCenter, toKey, tensors, choice);
    using plan = ctx.r.finish("choose");
    plan.run();
    assert.deepEqual([...(await readTensors(gpu, choice))[0]], [2, 1, NO_ENTRY, 0]);
    Object.values(tensors).forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "ownColumns() keeps the columns of the chosen entry, row by row, and their gradients",
  withGpu(async (gpu) => {
    const [rows, n, rank] = [5, 3, 2], width = n * rank;
    const sequence = [0, 0, 1, 2, 2], choice = [2, NO_ENTRY, 0];
    const tensors = [
      fromHost(gpu, "choice", [3], u32(...choice)),
      fromHost(gpu, "s", [rows], u32(...sequence)),
    ];
    await checkOp(gpu, {
      inputs: { x: { shape: [rows, width], values: normals(rows * width, 3) } },
      op: (ctx, { x }) => ownColumns(ctx, x, tensors[0], tensors[1], rank),
      reference: ({ x }) =>
        x.map((v, i) => choice[sequence[Math.floor(i / width)]] === Math.floor(i % width / rank) ? v : 0),
      tolerance: ROUNDED,
    });
    tensors.forEach((t) => freeTensor(gpu, t));
  }),
);
