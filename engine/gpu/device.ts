/**
 * Opens the GPU: adapter, limits, features, pipelines, transfers. Everything above talks to a {@link Gpu}.
 */
import { ErrorSink, GpuError } from "./errors.ts";
import { type Feature, type Kernel, kernelKey, kernelSource, splitBinding, type Variant } from "./kernel.ts";
import { type GpuBuffer, Memory } from "./memory.ts";
import { grants, isSoftware, requestAdapter } from "./platform.ts";
import { type Numerics, probeNumerics } from "./probe.ts";
import { Recorder } from "./recorder.ts";

/** How to open the device. */
export interface GpuOptions {
  /** Refuse a software driver. Default: take what there is, GPUs first. */
  requireGpu?: boolean;
  /** Features to leave alone though the device has them: for tests of the portable routes. */
  without?: Feature[];
  /** Keep WebGPU's default limits, those of every device, instead of the adapter's own. */
  portable?: boolean;
  /** Called with the name of each pipeline as it is compiled. */
  onCompile?: (name: string) => void;
}

/** Adapter limits that the engine asks for by name; everything else stays at WebGPU's defaults. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "minUniformBufferOffsetAlignment",
] as const;

/** Features worth having. Deno hides native ones in `adapter.features` but grants them: try one by one. */
const WANTED_FEATURES: Feature[] = ["subgroups", "shader-f64", "wgpu-shader-int64"];

/** A compiled kernel variant and the layout of its storage bindings. */
export interface Compiled {
  pipeline: GPUComputePipeline;
  layout: GPUBindGroupLayout;
}

/** An open device with its memory, pipelines and error policy. */
export class Gpu implements Disposable {
  readonly memory: Memory;
  readonly limits: GPUSupportedLimits;
  /** "cpu" is a software driver such as llvmpipe: other kernels are fast there. */
  readonly class: "cpu" | "gpu";
  /** The fixed subgroup size, 0 when it varies or there are no subgroups. */
  readonly subgroupSize: number;
  readonly uniformLayout: GPUBindGroupLayout;
  /** What the numerics probe found; selects the solver's route. */
  numerics!: Numerics;
  #errors = new ErrorSink();
  #pipelines = new Map<string, Compiled>();
  #staging?: GPUBuffer;
  #onCompile?: (name: string) => void;

  private constructor(
    readonly device: GPUDevice,
    readonly description: string,
    readonly features: ReadonlySet<Feature>,
    info: GPUAdapterInfo,
    options: GpuOptions,
  ) {
    this.#errors.listen(device);
    this.memory = new Memory(device);
    this.limits = device.limits;
    this.class = isSoftware(info) ? "cpu" : "gpu";
    const { subgroupMinSize: min = 0, subgroupMaxSize: max = 0 } = info as unknown as Record<string, number>;
    this.subgroupSize = features.has("subgroups") && min === max ? min : 0;
    this.#onCompile = options.onCompile;
    this.uniformLayout = device.createBindGroupLayout({
      label: "uniforms",
      entries: [{
        binding: 0,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: 64 },
      }],
    });
  }

  /** @throws {GpuError} when there is no adapter, or only a software one and a GPU was required */
  static async open(options: GpuOptions = {}): Promise<Gpu> {
    const probe = await requestAdapter();
    const info = probe.info;
    if (options.requireGpu && isSoftware(info)) {
      throw new GpuError(
        `The only adapter is a software driver (${info.description})`,
        "Check the GPU's driver",
      );
    }
    const features: Feature[] = [];
    for (const feature of WANTED_FEATURES) {
      if (!options.without?.includes(feature) && await grants(feature)) features.push(feature);
    }
    const timestamps = probe.features.has("timestamp-query") ? ["timestamp-query"] : [];
    const wanted = options.portable ? [] : WANTED_LIMITS;
    const requiredLimits = Object.fromEntries(wanted.map((name) => [name, probe.limits[name]]));
    const device = await probe.requestDevice({
      label: "emend",
      requiredFeatures: [...features, ...timestamps] as unknown as GPUFeatureName[],
      requiredLimits,
    });
    const gpu = new Gpu(device, info.description || info.vendor, new Set(features), info, options);
    gpu.numerics = await probeNumerics(gpu);
    return gpu;
  }

  /** Starts recording a plan. */
  recorder(): Recorder {
    return new Recorder(this);
  }

  /** The compiled pipeline of a kernel variant, cached. @throws {GpuError} when a needed feature is missing */
  pipeline(kernel: Kernel, variant: Variant, gated: boolean): Compiled {
    const key = kernelKey(kernel, variant, gated);
    const cached = this.#pipelines.get(key);
    if (cached) return cached;
    for (const feature of kernel.features?.(variant) ?? []) {
      if (!this.features.has(feature)) throw new GpuError(`Kernel ${key} needs the feature ${feature}`);
    }
    this.#onCompile?.(key);
    const types: GPUBufferBindingType[] = Object.values(kernel.bindings).map((b) =>
      splitBinding(b)[0] === "read" ? "read-only-storage" : "storage"
    );
    if (gated) types.push("uniform");
    const layout = this.device.createBindGroupLayout({
      label: key,
      entries: types.map((type, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      })),
    });
    const pipeline = this.device.createComputePipeline({
      label: key,
      layout: this.device.createPipelineLayout({
        label: key,
        bindGroupLayouts: [layout, this.uniformLayout],
      }),
      compute: {
        module: this.device.createShaderModule({ label: key, code: kernelSource(kernel, variant, gated) }),
        entryPoint: "main",
      },
    });
    const made = { pipeline, layout };
    this.#pipelines.set(key, made);
    return made;
  }

  /** Writes host bytes into a buffer in pieces, submitting after each so that staging copies are released. */
  upload(buffer: GpuBuffer, bytes: Uint8Array, offset = 0): void {
    const piece = 8 << 20;
    if (offset + bytes.byteLength > buffer.bytes) {
      throw new GpuError(
        `Cannot write ${bytes.byteLength} bytes at ${offset} into ${buffer.label} of ${buffer.bytes}`,
      );
    }
    for (let at = 0; at < bytes.byteLength; at += piece) {
      const part = bytes.subarray(at, Math.min(at + piece, bytes.byteLength));
      const padded = part.byteLength % 4 === 0 ? part : pad4(part);
      this.device.queue.writeBuffer(buffer.gpu, offset + at, padded as Uint8Array<ArrayBuffer>);
      if (bytes.byteLength >= 1 << 20) this.device.queue.submit([]);
    }
  }

  /**
   * Reads several buffers with one wait (11 ms at least in Deno: never in a loop).
   * @throws {GpuError} what went wrong on the device since the last wait
   */
  async read(...wanted: { buffer: GpuBuffer; bytes?: number; offset?: number }[]): Promise<ArrayBuffer[]> {
    const sizes = wanted.map(({ buffer, bytes, offset = 0 }) =>
      Math.ceil((bytes ?? buffer.bytes - offset) / 4) * 4
    );
    const total = sizes.reduce((a, b) => a + b, 0);
    // Taken for as long as it is mapped: another read may start meanwhile.
    let staging = this.#staging;
    this.#staging = undefined;
    if (!staging || staging.size < total) {
      staging?.destroy();
      const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
      staging = this.device.createBuffer({ label: "readback", size: Math.max(total, 4096), usage });
    }
    const encoder = this.device.createCommandEncoder({ label: "readback" });
    let at = 0;
    wanted.forEach(({ buffer, offset = 0 }, i) => {
      encoder.copyBufferToBuffer(buffer.gpu, offset, staging, at, sizes[i]);
      at += sizes[i];
    });
    this.device.queue.submit([encoder.finish()]);
    this.waits++;
    await staging.mapAsync(GPUMapMode.READ, 0, Math.max(total, 4));
    const mapped = staging.getMappedRange(0, Math.max(total, 4));
    at = 0;
    const out = sizes.map((size) => mapped.slice(at, at += size));
    staging.unmap();
    if (this.#staging || staging.size > 64 << 20) staging.destroy();
    else this.#staging = staging;
    this.check();
    return out;
  }

  /** How often the host has waited for the GPU: loops are tested against it. */
  waits = 0;

  /** Waits until everything submitted is done. */
  async sync(): Promise<void> {
    this.waits++;
    await this.device.queue.onSubmittedWorkDone();
    this.check();
  }

  /** @throws {GpuError} any error the device reported since the last check */
  check(): void {
    const oom = this.memory.outOfMemory;
    this.memory.outOfMemory = undefined;
    if (oom) throw new GpuError(oom, "Use a smaller batch, or a device with more memory");
    this.#errors.check();
  }

  /** Destroys the device and all its buffers. */
  [Symbol.dispose](): void {
    this.#staging?.destroy();
    this.device.destroy();
  }
}

function pad4(bytes: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  padded.set(bytes);
  return padded;
}
