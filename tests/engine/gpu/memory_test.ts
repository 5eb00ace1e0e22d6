/** The ledger, the pool, and what is refused. */
import assert from "node:assert/strict";
import { formatBytes, Memory, sizeClass } from "../../../engine/gpu/memory.ts";
import { withGpu } from "../../_gpu.ts";

Deno.test(
  "the ledger follows now, peak and owners when buffers come and go",
  withGpu((gpu) => {
    const memory = new Memory(gpu.device);
    const a = memory.alloc(1000, "a", "weights");
    const b = memory.alloc(64, "b", "statistics");
    assert.equal(a.bytes, 1008, "sizes are whole vec4s");
    assert.deepEqual([memory.now, memory.peak, memory.created], [1072, 1072, 2]);
    assert.deepEqual(memory.owners(), [["weights", 1008], ["statistics", 64]]);
    memory.free(a);
    assert.deepEqual([memory.now, memory.peak], [64, 1072]);
    assert.deepEqual(memory.owners(), [["statistics", 64]]);
    memory.resetPeak();
    assert.equal(memory.peak, 64);
    const c = memory.alloc(0, "c", "weights");
    assert.equal(c.bytes, 16, "no buffer is empty");
    assert.deepEqual([memory.now, memory.peak], [80, 80]);
    assert.throws(() => memory.free(a), { name: "GpuError", message: "Cannot free a: it is not alive" });
    [b, c].forEach((buffer) => memory.free(buffer));
    assert.deepEqual([memory.now, memory.owners()], [0, []]);
  }),
);

Deno.test(
  "take() serves from the pool what give() put there, and trim() destroys it",
  withGpu((gpu) => {
    const memory = new Memory(gpu.device);
    const a = memory.take(1000);
    memory.give(a);
    assert.equal(memory.take(900), a, "the same size class");
    assert.notEqual(memory.take(900), a, "but only once");
    memory.give(a);
    memory.withdraw(new Set([a]));
    assert.notEqual(memory.take(900), a);
    memory.give(a);
    const { now } = memory;
    memory.trim();
    assert.equal(memory.now, now - a.bytes);
    assert.throws(() => memory.free(a), /not alive/);
  }),
);

Deno.test(
  "alloc() names the sizes and the remedy when a buffer is over the device's limit",
  withGpu((gpu) => {
    const memory = new Memory(gpu.device);
    const limit = Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
    assert.throws(() => memory.alloc(limit + (1 << 20), "embed", "weights"), {
      name: "GpuError",
      message: `Cannot allocate embed: ${formatBytes(limit + (1 << 20))} is over the device's limit of ` +
        `${formatBytes(limit)}\nSplit it into row shards`,
      hint: "Split it into row shards",
    });
    assert.deepEqual([memory.now, memory.created], [0, 0]);
  }),
);

Deno.test("take() rounds up no further than the device's limit", () => {
  const limits = { maxBufferSize: 1 << 30, maxStorageBufferBindingSize: 1_000_007 };
  const created: number[] = [];
  const device = {
    limits,
    pushErrorScope() {},
    popErrorScope: () => Promise.resolve(null),
    createBuffer: ({ size }: { size: number }) => created.push(size),
  };
  const memory = new Memory(device as unknown as GPUDevice);
  const buffer = memory.take(900_000);
  assert.deepEqual(created, [1_000_000]);
  memory.give(buffer);
  assert.equal(memory.take(800_000), buffer);
  assert.throws(() => memory.take(1_000_100), /over the device's limit/);
});

Deno.test("sizeClass() wastes a third at most and gives few classes", () => {
  const classes = new Set<number>();
  for (let bytes = 1; bytes < 1 << 22; bytes = Math.ceil(bytes * 1.01)) {
    const size = sizeClass(bytes);
    assert.ok(size >= bytes && size % 16 === 0, `${bytes} → ${size}`);
    assert.ok(bytes <= 256 || size <= bytes * 1.5, `${bytes} → ${size}`);
    assert.equal(sizeClass(size), size);
    classes.add(size);
  }
  assert.ok(classes.size < 32);
});

Deno.test("formatBytes() writes KiB and MiB", () => {
  assert.deepEqual([512, 1 << 20, 1536 << 20].map(formatBytes), ["0.5 KiB", "1.0 MiB", "1536.0 MiB"]);
});
