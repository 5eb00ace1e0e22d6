/**
 * What a replay costs the host: time of `plan.run()` a dispatch, on plans of 200 and 2000 tiny dispatches.
 * The target is 4 µs at most. The GPU's own time is left out: each sample waits for it after the clock stops.
 *
 * ```sh
 * deno bench -A bench/replay.ts
 * ```
 */
import { Gpu } from "../engine/gpu/device.ts";
import { recordIncrease } from "../tests/engine/gpu/_kernels.ts";

const gpu = await Gpu.open();
const TARGET_US = 4;

for (const dispatches of [200, 2000]) {
  for (const gated of [false, true]) {
    const buffers = ["a", "b"].map((name) => gpu.memory.alloc(256, name, "bench"));
    const gate = gpu.memory.alloc(16, "gate", "bench");
    const r = gpu.recorder();
    r.gated(gated ? gate : undefined, () => {
      for (let i = 0; i < dispatches; i++) recordIncrease(r, buffers[i % 2], 1);
    });
    const plan = r.finish("replay");
    const samples: number[] = [];
    const name = `replay of ${dispatches} dispatches${gated ? ", gated" : ""}`;
    Deno.bench({ name, warmup: 5, n: 60 }, async (b) => {
      b.start();
      const start = performance.now();
      plan.run();
      samples.push(1000 * (performance.now() - start) / dispatches);
      b.end();
      await gpu.sync();
    });
    globalThis.addEventListener("unload", () => {
      if (samples.length === 0) return;
      const sorted = samples.toSorted((a, b) => a - b);
      const at = (q: number) => sorted[Math.floor(q * (sorted.length - 1))].toFixed(2);
      console.log(`${name}: median ${at(0.5)} µs a dispatch (${at(0.1)} to ${at(0.9)}), target ${TARGET_US}`);
    });
  }
}
console.log(`adapter: ${gpu.description}`);
