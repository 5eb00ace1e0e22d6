import { deepStrictEqual, throws } from "node:assert/strict";
import { fill } from "../../../engine/ops/elementwise.ts";
import { unpack } from "../../../engine/ops/unpack.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { readTensors, writeBytes } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";
import { normals, pack } from "./_reference.ts";

Deno.test(
  "unpack() gives every stored value exactly, whatever the dtype and the shards of both sides",
  withGpu(async (gpu) => {
    const [rows, cols] = [8, 5];
    for (const dtype of ["f16", "bf16"] as const) {
      for (
        const [from, to] of [[1 << 20, 1 << 20], [2 * cols * 2, 1 << 20], [1 << 20, 2 * cols * 4], [40, 80]]
      ) {
        const { bytes, values } = pack(normals(rows * cols, 3), dtype);
        const x = createTensor(gpu, "x", [rows, cols], { dtype, maxShardBytes: from });
        const y = createTensor(gpu, "y", [rows, cols], { maxShardBytes: to });
        writeBytes(gpu, x, 0, bytes);
        const ctx = { gpu, r: gpu.recorder() };
        fill(ctx, y, 1);
        unpack(ctx, x, y, { accumulate: true });
        unpack(ctx, x, y);
        using plan = ctx.r.finish("unpack");
        plan.run();
        const [got] = await readTensors(gpu, y);
        deepStrictEqual([...got], [...values]);
        [x, y].forEach((t) => freeTensor(gpu, t));
      }
    }
  }),
);

Deno.test(
  "unpack() adds when asked, and names the tensors when their sizes differ",
  withGpu(async (gpu) => {
    const x = createTensor(gpu, "x", [3]), y = createTensor(gpu, "y", [3]), z = createTensor(gpu, "z", [4]);
    const ctx = { gpu, r: gpu.recorder() };
    fill(ctx, x, 2);
    fill(ctx, y, 1);
    unpack(ctx, x, y, { accumulate: true });
    throws(() => unpack(ctx, x, z), /Cannot unpack x \[3\] into z \[4\]/);
    using plan = ctx.r.finish("unpack");
    plan.run();
    deepStrictEqual([...(await readTensors(gpu, y))[0]], [3, 3, 3]);
    [x, y, z].forEach((t) => freeTensor(gpu, t));
  }),
);
