/** Replays: no allocation, the same bits, profiles that add up, and disposal. */
import assert from "node:assert/strict";
import { GpuError } from "../../../engine/gpu/errors.ts";
import { withGpu } from "../../_gpu.ts";
import { recordFill, recordIncrease, recordSum, words } from "./_kernels.ts";

Deno.test(
  "run() creates no buffers and keeps state on the device when it is replayed",
  withGpu(async (gpu) => {
    const [state, y] = ["state", "y"].map((name) => gpu.memory.alloc(1024, name, "test"));
    const r = gpu.recorder();
    const t = r.temp(1024, "t");
    recordIncrease(r, state, 3);
    recordFill(r, t, 100);
    recordSum(r, t, state, y);
    using plan = r.finish("replay");
    plan.run();
    const { created, now } = gpu.memory;
    const waits = gpu.waits;
    plan.run(9);
    assert.deepEqual([gpu.memory.created, gpu.memory.now, gpu.waits], [created, now, waits]);
    assert.deepEqual([...new Set(await words(gpu, y))], [130]);
    assert.equal(plan.length, 3);
    [state, y].forEach((buffer) => gpu.memory.free(buffer));
  }),
);

Deno.test(
  "dispose() gives the temporaries back once when it is called twice, and run() then says so",
  withGpu((gpu) => {
    gpu.memory.trim();
    const record = () => {
      const r = gpu.recorder();
      const [a, b] = ["a", "b"].map((name) => r.temp(5000, name));
      recordFill(r, a, 1);
      recordFill(r, b, 2);
      recordSum(r, a, b, r.temp(5000, "c"));
      return r.finish("disposed");
    };
    const plan = record();
    plan.run();
    const { created } = gpu.memory;
    plan.dispose();
    plan.dispose();
    assert.throws(() => plan.run(), { name: "GpuError", message: "The plan disposed was disposed" });
    // Two plans alive at once share nothing: had a buffer come back twice, both would get it.
    using first = record();
    assert.equal(gpu.memory.created, created, "the pool serves the next plan");
    using second = record();
    assert.equal(gpu.memory.created, created + 3);
    first.run();
    second.run();
  }),
);

Deno.test(
  "finish() returns the temporaries to the pool when a pipeline is refused",
  withGpu((gpu) => {
    gpu.memory.trim();
    const r = gpu.recorder();
    recordFill(r, r.temp(70_000, "t"), 1);
    const { pipeline } = gpu;
    gpu.pipeline = () => {
      throw new GpuError("Kernel test_fill needs the feature shader-f16");
    };
    try {
      assert.throws(() => r.finish(), /shader-f16/);
    } finally {
      gpu.pipeline = pipeline;
    }
    assert.ok(gpu.memory.now > 0);
    gpu.memory.trim();
    assert.ok(!gpu.memory.owners().some(([owner]) => owner === "temporaries"), "nothing stays behind");
  }),
);

Deno.test(
  "profile() counts every dispatch and its times add up to less than the wall clock",
  withGpu(async (gpu) => {
    if (!gpu.device.features.has("timestamp-query")) {
      const r = gpu.recorder();
      using plan = r.finish("bare");
      await assert.rejects(plan.profile(), /^GpuError: Cannot profile bare: this device has no timestamps$/);
      return;
    }
    const y = gpu.memory.alloc(1 << 20, "y", "test");
    const r = gpu.recorder();
    // More dispatches than fit into one query set.
    for (let i = 0; i < 2100; i++) recordIncrease(r, y, 1, 64);
    for (let i = 0; i < 5; i++) recordFill(r, y, i);
    using plan = r.finish("profiled");
    plan.run();
    await gpu.sync();
    const start = performance.now();
    const times = await plan.profile();
    const wall = performance.now() - start;
    assert.deepEqual(
      Object.fromEntries(times.map(({ name, dispatches }) => [name, dispatches])),
      { test_increase: 2100, test_fill: 5 },
    );
    const total = times.reduce((ms, t) => ms + t.ms, 0);
    assert.ok(times.every((t) => t.ms >= 0) && total > 0 && total < wall, `${total} of ${wall} ms`);
    assert.deepEqual(times, times.toSorted((a, b) => b.ms - a.ms));
    gpu.memory.free(y);
  }),
);

Deno.test(
  "parameters of every type arrive in their kernel when many dispatches share the uniform block",
  withGpu(async (gpu) => {
    const { defineKernel } = await import("../../../engine/gpu/kernel.ts");
    const params = Object.fromEntries(
      Array.from({ length: 16 }, (_, i) => [`p${i}`, (["u32", "i32", "f32"] as const)[i % 3]]),
    );
    const wide = defineKernel({
      name: "test_wide",
      source: "@compute @workgroup_size(1) fn main() {\n" +
        Object.keys(params).map((name, i) => `y[${i}] = f32(p.${name});`).join("\n") + "\n}",
      bindings: { y: "write f32" },
      params,
    });
    const outs = Array.from({ length: 40 }, (_, i) => gpu.memory.alloc(64, `y${i}`, "test"));
    const value = (i: number, k: number) => [i * 16 + k, -i * 16 - k, i + k / 16][k % 3];
    const r = gpu.recorder();
    outs.forEach((y, i) => {
      const given = Object.fromEntries(Object.keys(params).map((name, k) => [name, value(i, k)]));
      r.dispatch(wide, { bind: { y }, params: given, grid: [1, 1, 1] });
    });
    using plan = r.finish();
    plan.run();
    const read = await gpu.read(...outs.map((buffer) => ({ buffer })));
    read.forEach((bytes, i) => {
      assert.deepEqual([...new Float32Array(bytes)], Array.from({ length: 16 }, (_, k) => value(i, k)));
    });
    outs.forEach((buffer) => gpu.memory.free(buffer));
  }),
);
