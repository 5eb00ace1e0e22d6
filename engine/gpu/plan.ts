/**
 * A finished plan: a flat list of (pipeline, bind group, uniform offset, grid) with everything prebuilt.
 * A replay is one encoder, one compute pass, one submit; about 2–3 µs of CPU a dispatch.
 */
import { GpuError } from "./errors.ts";
import type { Gpu } from "./device.ts";
import type { Kernel, Variant } from "./kernel.ts";
import type { GpuBuffer, Storage, VirtualBuffer } from "./memory.ts";
import type { Grid } from "./recorder.ts";

/** One recorded dispatch. */
export interface Step {
  kernel: Kernel;
  variant: Variant;
  gated: boolean;
  storages: Storage[];
  params: Record<string, number>;
  grid: Grid;
}

interface Prepared {
  pipeline: GPUComputePipeline;
  group: GPUBindGroup;
  offset: number[];
  grid: Grid;
  name: string;
}

/** Time of one kernel in a profile, summed over its dispatches. */
export interface KernelTime {
  name: string;
  ms: number;
  dispatches: number;
}

/** A replayable list of dispatches. Dispose it to free its temporaries. */
export class Plan implements Disposable {
  readonly label: string;
  #gpu: Gpu;
  #steps: Prepared[];
  #owned: GpuBuffer[];
  #uniforms?: GPUBuffer;
  #uniformGroup: GPUBindGroup;

  constructor(
    gpu: Gpu,
    label: string,
    steps: Step[],
    placed: Map<VirtualBuffer, GpuBuffer>,
    owned: GpuBuffer[],
  ) {
    this.#gpu = gpu;
    this.label = label;
    this.#owned = owned;
    const stride = gpu.limits.minUniformBufferOffsetAlignment;
    const size = steps.reduce((bytes, s) => bytes + roundUp(paramBytes(s.kernel), stride), 0) + 64;
    const block = new ArrayBuffer(roundUp(size, 16));
    this.#uniforms = gpu.device.createBuffer({
      label: `${label} uniforms`,
      size: block.byteLength,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    this.#uniformGroup = gpu.device.createBindGroup({
      label: `${label} uniforms`,
      layout: gpu.uniformLayout,
      entries: [{ binding: 0, resource: { buffer: this.#uniforms, size: 64 } }],
    });
    let offset = 0;
    this.#steps = steps.map((step) => {
      writeParams(new DataView(block, offset), step);
      const { pipeline, layout } = gpu.pipeline(step.kernel, step.variant, step.gated);
      const group = gpu.device.createBindGroup({
        label: `${step.kernel.name}(${step.storages.map((s) => s.label).join(", ")})`,
        layout,
        entries: step.storages.map((storage, binding) => {
          const buffer = storage.kind === "virtual" ? placed.get(storage)! : storage;
          const isGate = step.gated && binding === step.storages.length - 1;
          return { binding, resource: { buffer: buffer.gpu, size: isGate ? 16 : storage.bytes } };
        }),
      });
      const prepared = { pipeline, group, offset: [offset], grid: step.grid, name: step.kernel.name };
      offset += roundUp(paramBytes(step.kernel), stride);
      return prepared;
    });
    gpu.device.queue.writeBuffer(this.#uniforms, 0, block);
  }

  /** Dispatches of one replay. */
  get length(): number {
    return this.#steps.length;
  }

  /** Submits the plan `times` times; does not wait. */
  run(times = 1): void {
    const { device } = this.#gpu;
    if (!this.#uniforms) throw new GpuError(`The plan ${this.label} was disposed`);
    for (let t = 0; t < times; t++) {
      const encoder = device.createCommandEncoder({ label: this.label });
      const pass = encoder.beginComputePass({ label: this.label });
      this.#encode(pass, this.#steps);
      pass.end();
      device.queue.submit([encoder.finish()]);
    }
  }

  #encode(pass: GPUComputePassEncoder, steps: Prepared[]): void {
    let current: GPUComputePipeline | undefined;
    for (const { pipeline, group, offset, grid } of steps) {
      if (pipeline !== current) pass.setPipeline(current = pipeline);
      pass.setBindGroup(0, group);
      pass.setBindGroup(1, this.#uniformGroup, offset);
      pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    }
  }

  /**
   * Replays once with one pass a step and timestamps; kernels by time, slowest first. Waits.
   * @throws {GpuError} when the device has no timestamps
   */
  async profile(): Promise<KernelTime[]> {
    const { device } = this.#gpu;
    if (!device.features.has("timestamp-query")) {
      throw new GpuError(`Cannot profile ${this.label}: this device has no timestamps`);
    }
    const n = this.#steps.length;
    const perSet = 2048;
    const times = new Map<string, KernelTime>();
    for (let start = 0; start < n; start += perSet) {
      const steps = this.#steps.slice(start, start + perSet);
      const querySet = device.createQuerySet({ type: "timestamp", count: steps.length * 2 });
      const bytes = steps.length * 16;
      const resolved = device.createBuffer({
        size: bytes,
        usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
      });
      const staging = device.createBuffer({
        size: bytes,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      });
      const encoder = device.createCommandEncoder({ label: `${this.label} profile` });
      steps.forEach((step, i) => {
        const timestampWrites = {
          querySet,
          beginningOfPassWriteIndex: 2 * i,
          endOfPassWriteIndex: 2 * i + 1,
        };
        const pass = encoder.beginComputePass({ timestampWrites });
        this.#encode(pass, [step]);
        pass.end();
      });
      encoder.resolveQuerySet(querySet, 0, steps.length * 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
      device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const stamps = new BigUint64Array(staging.getMappedRange().slice(0));
      steps.forEach(({ name }, i) => {
        const entry = times.get(name) ?? { name, ms: 0, dispatches: 0 };
        entry.ms += Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6;
        entry.dispatches++;
        times.set(name, entry);
      });
      [querySet, resolved, staging].forEach((o) => o.destroy());
    }
    this.#gpu.check();
    return [...times.values()].sort((a, b) => b.ms - a.ms);
  }

  /** Frees the plan's temporaries (to the pool) and its uniform block. */
  dispose(): void {
    if (!this.#uniforms) return;
    this.#owned.forEach((b) => this.#gpu.memory.give(b));
    this.#owned = [];
    this.#uniforms.destroy();
    this.#uniforms = undefined;
    this.#steps = [];
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function paramBytes(kernel: Kernel): number {
  return Math.max(16, roundUp(Object.keys(kernel.params).length * 4, 16));
}

function writeParams(view: DataView, step: Step): void {
  Object.entries(step.kernel.params).forEach(([name, type], i) => {
    const value = step.params[name];
    if (type === "f32") view.setFloat32(4 * i, value, true);
    else if (type === "i32") view.setInt32(4 * i, value, true);
    else view.setUint32(4 * i, value, true);
  });
}

function roundUp(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}
