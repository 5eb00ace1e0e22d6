/** What a recorder refuses, what gates skip, and that temporaries which live together never share memory. */
import assert from "node:assert/strict";
import { Gpu } from "../../../engine/gpu/device.ts";
import { GpuError } from "../../../engine/gpu/errors.ts";
import { defineKernel } from "../../../engine/gpu/kernel.ts";
import type { VirtualBuffer } from "../../../engine/gpu/memory.ts";
import { foldGrid } from "../../../engine/gpu/recorder.ts";
import { withGpu } from "../../_gpu.ts";
import { fill, recordFill, recordIncrease, recordSum, sum, words } from "./_kernels.ts";

function refuses(record: () => void, message: RegExp): void {
  assert.throws(record, (error) => error instanceof GpuError && message.test(error.message), String(message));
}

Deno.test(
  "dispatch() refuses a call that does not fit its kernel",
  withGpu((gpu) => {
    const y = gpu.memory.alloc(256, "y", "test");
    const other = gpu.memory.alloc(256, "other", "test");
    const r = gpu.recorder();
    const grid = [1, 1, 1] as const;
    refuses(
      () => r.dispatch(fill, { bind: {}, params: { n: 1, value: 1 }, grid }),
      /^Kernel test_fill misses .* "y"$/,
    );
    refuses(
      () => r.dispatch(fill, { bind: { y, z: other }, params: { n: 1, value: 1 }, grid }),
      /^Kernel test_fill has no binding "z"$/,
    );
    refuses(
      () => r.dispatch(fill, { bind: { y }, params: { n: 1 }, grid }),
      /^Kernel test_fill misses its parameter "value" \(got undefined\)$/,
    );
    refuses(() => r.dispatch(fill, { bind: { y }, params: { n: NaN, value: 1 }, grid }), /"n" \(got NaN\)$/);
    refuses(
      () => r.dispatch(fill, { bind: { y }, params: { n: 1, value: 1 }, grid, variant: { WG: 64 } }),
      /^Kernel test_fill has no variant axis "WG"$/,
    );
    refuses(() => recordSum(r, y, other, y), /^Kernel test_sum binds y 2 times and writes it$/);
    refuses(
      () => r.dispatch(fill, { bind: { y }, params: { n: 1, value: 1 }, grid: [65536, 1, 1] }),
      /^Kernel test_fill has the grid 65536×1×1; the limit is 65535 a dimension$/,
    );
    refuses(
      () => r.dispatch(fill, { bind: { y }, params: { n: 1, value: 1 }, grid: [1, 0.5, 1] }),
      /1×0\.5×1/,
    );
    assert.equal(r.length, 0);
    recordSum(r, other, other, y);
    assert.equal(r.length, 1, "one buffer may be read twice");
    r.dispatch(fill, { bind: { y }, params: { n: 0, value: 1 }, grid: [0, 1, 1] });
    assert.equal(r.length, 1, "an empty grid is no dispatch");
    r.finish().dispose();
    refuses(() => recordFill(r, y, 1), /^Cannot record into a finished plan$/);
    refuses(() => r.finish(), /finished already$/);
    [y, other].forEach((b) => gpu.memory.free(b));
  }),
);

Deno.test(
  "dispatch() refuses a temporary that is read before anything wrote it",
  withGpu((gpu) => {
    const y = gpu.memory.alloc(256, "y", "test");
    const r = gpu.recorder();
    const t = r.temp(256, "t");
    refuses(() => recordSum(r, t, y, y), /^Kernel test_sum reads t before anything wrote it$/);
    refuses(() => recordIncrease(r, t, 1), /^Kernel test_increase reads t before/);
    refuses(() => r.gated(t, () => recordFill(r, y, 1)), /^Kernel test_fill reads t before/);
    recordFill(r, t, 1);
    recordIncrease(r, t, 1);
    r.finish().dispose();
    gpu.memory.free(y);
  }),
);

Deno.test(
  "finish() gives temporaries that live together different memory, and reuses what has ended",
  withGpu(async (gpu) => {
    gpu.memory.trim();
    const n = 64;
    let seed = 7;
    const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
    const [out, zero] = ["out", "zero"].map((name) => gpu.memory.alloc(4 * n, name, "test"));
    const r = gpu.recorder();
    recordFill(r, out, 0);
    // A random program over temporaries of three size classes; `values` is what each must hold.
    const values = new Map<VirtualBuffer, number>();
    const scratch = r.temp(4 * n, "sum");
    let expected = 0;
    for (let i = 0; i < 150; i++) {
      const t = r.temp([256, 300, 1000][random(3)], `t${i}`);
      const value = random(1e6);
      recordFill(r, t, value);
      values.set(t, value);
      for (let k = 0; k < 2; k++) {
        const used = [...values.keys()][random(values.size)];
        recordSum(r, used, out, scratch, n);
        recordSum(r, scratch, zero, out, n);
        expected += values.get(used)!;
        if (random(3) === 0 && values.size > 6) values.delete(used);
      }
      if (values.size > 12) values.delete([...values.keys()][0]);
    }
    const before = gpu.memory.created;
    using plan = r.finish("liveness");
    const made = gpu.memory.created - before;
    assert.ok(made < 60, `150 temporaries, never more than 14 alive, took ${made} buffers`);
    plan.run(3);
    assert.deepEqual([...new Set(await words(gpu, out))], [expected]);
    [out, zero].forEach((buffer) => gpu.memory.free(buffer));
  }),
);

Deno.test(
  "gated() skips dispatches while the gate is not zero, and only those",
  withGpu(async (gpu) => {
    const gate = gpu.memory.alloc(1 << 17, "gate", "test");
    const [a, b] = ["a", "b"].map((name) => gpu.memory.alloc(256, name, "test"));
    const r = gpu.recorder();
    r.gated(gate, () => {
      recordIncrease(r, a, 1);
      r.gated(undefined, () => recordIncrease(r, b, 1));
      recordIncrease(r, a, 1);
      // Closes its own gate: it must be able to write it, so it runs ungated.
      recordIncrease(r, gate, 1, 1);
    });
    recordIncrease(r, b, 10);
    using plan = r.finish("gate");
    plan.run(3);
    assert.deepEqual([...await words(gpu, a)], new Array(64).fill(2), "a: the first run only");
    assert.deepEqual([...await words(gpu, b)], new Array(64).fill(33), "b: every run");
    assert.equal((await words(gpu, gate))[0], 3);
    [gate, a, b].forEach((buffer) => gpu.memory.free(buffer));
  }),
);

Deno.test(
  "gated() accepts a temporary as the gate",
  withGpu(async (gpu) => {
    const a = gpu.memory.alloc(256, "a", "test");
    const r = gpu.recorder();
    const gate = r.temp(4, "gate");
    recordFill(r, gate, 0, 1);
    r.gated(gate, () => recordIncrease(r, a, 5));
    recordFill(r, gate, 1, 1);
    r.gated(gate, () => recordIncrease(r, a, 7));
    using plan = r.finish();
    plan.run();
    assert.equal((await words(gpu, a))[0], 5);
    gpu.memory.free(a);
  }),
);

Deno.test("gated() works with a kernel of eight bindings when the limits are portable", async () => {
  using gpu = await Gpu.open({ portable: true });
  const names = Array.from({ length: 8 }, (_, i) => `b${i}`);
  const eight = defineKernel({
    name: "test_eight",
    source: `@compute @workgroup_size(1) fn main() { ${
      names.map((name, i) => `${name}[0] += ${i + 1}u;`).join(" ")
    } }`,
    bindings: Object.fromEntries(names.map((name) => [name, "update u32"])),
    params: {},
  });
  const bind = Object.fromEntries(names.map((name) => [name, gpu.memory.alloc(16, name, "test")]));
  const gate = gpu.memory.alloc(16, "gate", "test");
  const r = gpu.recorder();
  r.gated(gate, () => {
    r.dispatch(eight, { bind, grid: [1, 1, 1] });
    recordFill(r, gate, 1, 1);
    r.dispatch(eight, { bind, grid: [1, 1, 1] });
  });
  using plan = r.finish();
  plan.run();
  assert.equal((await words(gpu, bind.b7))[0], 8);
});

Deno.test(
  "gated() restores the outer gate when recording throws",
  withGpu((gpu) => {
    const [gate, y] = ["gate", "y"].map((name) => gpu.memory.alloc(256, name, "test"));
    const r = gpu.recorder();
    assert.throws(() =>
      r.gated(gate, () => {
        throw new Error("stop");
      }), /stop/);
    // Bound read and written at once the gate would be refused, were it still on.
    r.dispatch(sum, { bind: { a: y, b: y, y: gate }, params: { n: 1 }, grid: [1, 1, 1] });
    using plan = r.finish();
    plan.run();
    [gate, y].forEach((buffer) => gpu.memory.free(buffer));
  }),
);

Deno.test("foldGrid() covers the count within the limit when it is folded", () => {
  assert.deepEqual(foldGrid(0), [0, 1, 1]);
  assert.deepEqual(foldGrid(65535), [65535, 1, 1]);
  for (const count of [65536, 65537, 100_003, 131_070, 131_071, 5_000_011, 65535 ** 2]) {
    const [x, y, z] = foldGrid(count);
    assert.ok(x * y >= count && x * y - count < y, `${count}: ${x}×${y}`);
    assert.ok(x <= 65535 && y <= 65535 && z === 1);
  }
  assert.deepEqual(foldGrid(10, 4), [4, 3, 1]);
});
