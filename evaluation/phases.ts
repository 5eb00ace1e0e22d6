/** What the phases of a case took: time, device memory and host memory. */
import type { Gpu } from "../engine/gpu/device.ts";
import type { Phase, PhaseCost } from "./records.ts";

/** Measures phases one after another. */
export class Phases {
  readonly costs: Partial<Record<Phase, PhaseCost>> = {};
  readonly #gpu: Gpu;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** Runs a phase and notes what it took. */
  async run<T>(phase: Phase, work: () => Promise<T>): Promise<T> {
    this.#gpu.memory.resetPeak();
    const start = performance.now();
    const result = await work();
    this.costs[phase] = {
      time_s: (performance.now() - start) / 1000,
      gpu_peak_bytes: this.#gpu.memory.peak,
      host_bytes: Deno.memoryUsage().rss,
    };
    return result;
  }

  /** The costs, times shared evenly by `cases` that were edited together. */
  shared(cases: number): Partial<Record<Phase, PhaseCost>> {
    return Object.fromEntries(
      Object.entries(this.costs).map(([phase, cost]) => [phase, { ...cost, time_s: cost.time_s / cases }]),
    );
  }
}
