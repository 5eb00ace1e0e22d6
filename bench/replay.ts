/**
 * What a replay costs the host: time of `plan.run()` a dispatch, on plans of 200 and 2000 tiny dispatches.
 * The goal is 4 µs at most. The GPU's own time is left out: each sample waits for it after the clock stops.
 *
 *   deno run -A bench/replay.ts
 */
import { Gpu } from "../engine/gpu/device.ts";
import { recordIncrease } from "../tests/engine/gpu/_kernels.ts";

const SAMPLES = 60;
const WARMUP = 5;

using gpu = await Gpu.open();
console.log(`adapter: ${gpu.description}`);
for (const dispatches of [200, 2000]) {
  for (const gated of [false, true]) {
    const buffers = ["a", "b"].map((name) => gpu.memory.alloc(256, name, "bench"));
    const gate = gpu.memory.alloc(16, "gate", "bench");
    const r = gpu.recorder();
    r.gated(gated ? gate : undefined, () => {
      for (let i = 0; i < dispatches; i++) recordIncrease(r, buffers[i % 2], 1);
    });
    using plan = r.finish("replay");
    const samples: number[] = [];
    for (let i = 0; i < SAMPLES + WARMUP; i++) {
      const start = performance.now();
      plan.run();
      if (i >= WARMUP) samples.push(1000 * (performance.now() - start) / dispatches);
      await gpu.sync();
    }
    const sorted = samples.toSorted((a, b) => a - b);
    const at = (q: number) => sorted[Math.floor(q * (sorted.length - 1))].toFixed(2);
    console.log(
      `${dispatches} dispatches${gated ? ", gated" : ""}: median ${at(0.5)} µs (${at(0.1)} to ${at(0.9)})`,
    );
  }
}
