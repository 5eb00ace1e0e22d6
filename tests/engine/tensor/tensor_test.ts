/** Shapes, row shards and host ↔ device: odd sizes, packed dtypes, shards of a few rows. */
import assert from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import {
  bytesOf,
  createTensor,
  describe,
  type Dtype,
  freeTensor,
  matrixOf,
  reshape,
  sizeOf,
  storageOf,
  tempTensor,
  tensorBytes,
} from "../../../engine/tensor/tensor.ts";
import { fromHost, readF32, readTensors, writeBytes, writeTensor } from "../../../engine/tensor/transfer.ts";
import { withGpu } from "../../_gpu.ts";

const ramp = (n: number) => Float32Array.from({ length: n }, (_, i) => i - n / 3);

function shardRows(gpu: Gpu, shape: number[], maxShardBytes: number, dtype: Dtype = "f32"): number[] {
  const t = createTensor(gpu, "t", shape, { dtype, maxShardBytes });
  assert.deepEqual(
    t.shards.map((s) => s.row),
    t.shards.map((_, i) => t.shards.slice(0, i).reduce((n, s) => n + s.rows, 0)),
  );
  freeTensor(gpu, t);
  return t.shards.map((s) => s.rows);
}

Deno.test("sizeOf() and matrixOf() see a tensor as a matrix whatever its rank", () => {
  const as = (shape: number[]) => matrixOf({ label: "t", shape, dtype: "f32", shards: [] });
  assert.deepEqual([sizeOf([]), sizeOf([0, 5]), sizeOf([2, 3, 4])], [1, 0, 24]);
  assert.deepEqual(as([2, 3, 4]), { rows: 6, cols: 4 });
  assert.deepEqual(as([5]), { rows: 5, cols: 1 });
  assert.deepEqual((["f32", "f16", "bf16", "u32", "f64"] as const).map(bytesOf), [4, 2, 2, 4, 8]);
});

Deno.test(
  "createTensor() cuts into shards of an even number of rows when the limit is small",
  withGpu((gpu) => {
    assert.deepEqual(shardRows(gpu, [7, 5], 1 << 20), [7]);
    assert.deepEqual(shardRows(gpu, [7, 5], 7 * 20), [7], "just fits");
    assert.deepEqual(shardRows(gpu, [7, 5], 7 * 20 - 1), [6, 1]);
    assert.deepEqual(shardRows(gpu, [7, 5], 50), [2, 2, 2, 1]);
    assert.deepEqual(
      shardRows(gpu, [9, 3], 32, "bf16"),
      [4, 4, 1],
      "five rows fit, but would end inside a word",
    );
    assert.deepEqual(shardRows(gpu, [10], 16), [4, 4, 2], "a vector has one element a row");
    assert.throws(
      () => createTensor(gpu, "wide", [2, 100], { maxShardBytes: 399 }),
      { name: "GpuError", message: "Cannot shard wide: one row has 400 bytes, the limit is 399" },
    );
  }),
);

Deno.test(
  "createTensor() accounts to its owner and freeTensor() takes it back",
  withGpu((gpu) => {
    const held = () => Object.fromEntries(gpu.memory.owners()).tensorTest ?? 0;
    const t = createTensor(gpu, "t", [9, 5], { owner: "tensorTest", maxShardBytes: 80 });
    assert.equal(t.shards.length, 3);
    assert.equal(held(), tensorBytes(t));
    assert.ok(tensorBytes(t) >= 180);
    assert.throws(() => storageOf(t), /^GpuError: t \[9, 5\] has 3 row shards; one was expected$/);
    freeTensor(gpu, t);
    assert.equal(held(), 0);
  }),
);

Deno.test(
  "fromHost() and readTensors() keep every element when sizes are odd and rows are sharded",
  withGpu(async (gpu) => {
    for (const shape of [[1], [3], [1, 1], [7, 5], [13, 3], [2, 3, 7], [101, 17]]) {
      for (const maxShardBytes of [undefined, 4 * 17 * 2, 4 * 17 * 6]) {
        const values = ramp(sizeOf(shape));
        const t = fromHost(gpu, "t", shape, values, { maxShardBytes });
        assert.deepEqual(await readF32(gpu, t), values, `${describe(t)} in ${t.shards.length} shards`);
        freeTensor(gpu, t);
      }
    }
  }),
);

Deno.test(
  "readTensors() gives each dtype its array and waits once",
  withGpu(async (gpu) => {
    const f32 = fromHost(gpu, "f32", [3, 5], ramp(15), { maxShardBytes: 40 });
    const u32 = fromHost(gpu, "u32", [5], Uint32Array.of(1, 2 ** 32 - 1, 3, 4, 5), { maxShardBytes: 16 });
    const f64 = fromHost(gpu, "f64", [3, 1], [Math.PI, -1e300, 2 ** -1000], {
      dtype: "f64",
      maxShardBytes: 16,
    });
    const f16 = createTensor(gpu, "f16", [3, 3], { dtype: "f16", maxShardBytes: 12 });
    const halves = Uint8Array.from({ length: 18 }, (_, i) => i + 1);
    writeBytes(gpu, f16, 0, halves);
    const waits = gpu.waits;
    assert.deepEqual(await readTensors(gpu, f32, u32, f64, f16), [
      ramp(15),
      Uint32Array.of(1, 2 ** 32 - 1, 3, 4, 5),
      Float64Array.of(Math.PI, -1e300, 2 ** -1000),
      halves,
    ]);
    assert.equal(gpu.waits, waits + 1);
    await assert.rejects(readF32(gpu, u32), /^GpuError: Cannot read u32 \[5\] as f32: its dtype is u32$/);
    [f32, u32, f64, f16].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "writeBytes() puts pieces where they belong when they cross shards",
  withGpu(async (gpu) => {
    // Rows of 3 bf16 are 6 bytes: with two a shard, shards begin at bytes 0, 12, 24, 36, 48.
    const t = createTensor(gpu, "t", [9, 3], { dtype: "bf16", maxShardBytes: 12 });
    assert.equal(t.shards.length, 5);
    const bytes = Uint8Array.from({ length: 54 }, (_, i) => 100 + i);
    for (const [from, to] of [[0, 4], [4, 32], [32, 36], [36, 54]]) {
      writeBytes(gpu, t, from, bytes.subarray(from, to));
    }
    assert.deepEqual((await readTensors(gpu, t))[0], bytes);
    writeBytes(gpu, t, 20, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
    bytes.set([1, 2, 3, 4, 5, 6, 7, 8], 20);
    assert.deepEqual((await readTensors(gpu, t))[0], bytes, "the neighbours stay");
    freeTensor(gpu, t);
  }),
);

Deno.test(
  "writeTensor() overwrites the whole, across shards, from a view",
  withGpu(async (gpu) => {
    const t = fromHost(gpu, "t", [5, 3], new Float32Array(15), { maxShardBytes: 24 });
    writeTensor(gpu, t, ramp(20).subarray(5));
    assert.deepEqual(await readF32(gpu, t), ramp(20).slice(5));
    const packed = createTensor(gpu, "packed", [2, 2], { dtype: "f16" });
    assert.throws(
      () => writeTensor(gpu, packed, [1, 2, 3, 4]),
      /^GpuError: Cannot write numbers into packed \[2, 2\] of dtype f16: write its bytes$/,
    );
    assert.throws(
      () => fromHost(gpu, "h", [2, 3], [1, 2]),
      /^GpuError: Cannot make h \[2, 3\] from 2 values$/,
    );
    [t, packed].forEach((tensor) => freeTensor(gpu, tensor));
  }),
);

Deno.test(
  "reshape() and tempTensor() share storage and keep sizes",
  withGpu((gpu) => {
    const r = gpu.recorder();
    const t = tempTensor(r, "h", [4, 6]);
    const flat = reshape(t, [2, 12]);
    assert.equal(storageOf(flat), storageOf(t));
    assert.equal(storageOf(tempTensor(r, "packed", [3, 3], "bf16")).bytes, 32, "18 bytes in whole vec4s");
    assert.throws(() => reshape(t, [5, 5]), /^GpuError: Cannot view h \[4, 6\] as \[5, 5\]$/);
  }),
);
