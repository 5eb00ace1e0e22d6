/**
 * What a device can do, as JSON: the questions that only hardware answers (limits, features, floating point,
 * f64, the costs of passes, submits and dispatches, uploads, matrix products). Its output is kept per device,
 * so that choices in the engine rest on measurements. Runs in less than a minute on a software driver.
 *
 * ```sh
 * deno run -A bench/device_report.ts [--out FILE]
 * ```
 */
import { Command } from "npm:commander@15.1.0";
import eft from "../shaders/lib/eft.wgsl" with { type: "text" };
import { Gpu } from "../engine/gpu/device.ts";
import { defineKernel, type Kernel, unroll } from "../engine/gpu/kernel.ts";
import { findAdapter } from "../engine/gpu/platform.ts";
import { type Layout, matmul } from "../engine/ops/matmul.ts";
import { createTensor, type Dtype, freeTensor } from "../engine/tensor/tensor.ts";
import { recordIncrease } from "../tests/engine/gpu/_kernels.ts";
import { asGpuClass } from "../tests/_gpu.ts";
import { uniform } from "../tests/engine/ops/_reference.ts";

const flags = new Command().option("--out <file>").parse(Deno.args, { from: "user" }).opts();

const MiB = 1 << 20;
const round = (x: number) => Number(x.toPrecision(4));

/** Median milliseconds of several runs, each awaited; the wait itself is measured once and taken off. */
async function milliseconds(gpu: Gpu, body: () => void, runs = 5): Promise<number> {
  const samples: number[] = [];
  for (let i = 0; i < runs + 1; i++) {
    const start = performance.now();
    body();
    await gpu.sync();
    if (i > 0) samples.push(performance.now() - start);
  }
  return Math.max(1e-3, samples.sort((a, b) => a - b)[runs >> 1] - await waitMs(gpu));
}

let wait: number | undefined;

/** What a wait for nothing costs. */
async function waitMs(gpu: Gpu): Promise<number> {
  if (wait !== undefined) return wait;
  const samples: number[] = [];
  for (let i = 0; i < 7; i++) {
    const start = performance.now();
    gpu.device.queue.submit([]);
    await gpu.sync();
    samples.push(performance.now() - start);
  }
  return wait = samples.sort((a, b) => a - b)[3];
}

/** Microseconds of one of `count` repetitions on the host, the GPU's work left out. */
async function hostMicroseconds(gpu: Gpu, count: number, body: () => void): Promise<number> {
  const samples: number[] = [];
  for (let i = 0; i < 6; i++) {
    const start = performance.now();
    for (let n = 0; n < count; n++) body();
    if (i > 0) samples.push(1000 * (performance.now() - start) / count);
    await gpu.sync();
  }
  return round(samples.sort((a, b) => a - b)[2]);
}

/** Sixteen independent chains of multiply-adds a lane: arithmetic and nothing else. */
function chains(real: "f32" | "f64"): Kernel {
  const one = real === "f64" ? "lf" : "";
  return defineKernel({
    name: `report_chains_${real}`,
    source: `@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let x = ${real}(id.x % 7u) * 1e-3${one};
${unroll(16, (i) => `  var y${i} = x + ${i}.0${one};`)}
  for (var n = 0u; n < p.steps; n++) {
${unroll(16, (i) => `    y${i} = y${i} * 0.999${one} + x;`)}
  }
  y[id.x] = f32(${Array.from({ length: 16 }, (_, i) => `y${i}`).join(" + ")});
}`,
    bindings: { y: "write f32" },
    params: { steps: "u32" },
    features: () => real === "f64" ? ["shader-f64"] : [],
  });
}

async function arithmetic(gpu: Gpu, real: "f32" | "f64") {
  const lanes = gpu.class === "gpu" ? 1 << 20 : 1 << 13;
  const y = gpu.memory.alloc(4 * lanes, "y", "report");
  const steps = 512;
  const r = gpu.recorder();
  r.dispatch(chains(real), { bind: { y }, params: { steps }, grid: [lanes / 64, 1, 1] });
  using plan = r.finish("chains");
  const times = gpu.class === "gpu" ? 20 : 4;
  const ms = await milliseconds(gpu, () => plan.run(times));
  gpu.memory.free(y);
  return round(times * lanes * steps * 32 / ms / 1e6);
}

/** A dot product in f64 as two halves of a double, against the same sum on the host. */
const dot64 = defineKernel({
  name: "report_dot64",
  source: `@compute @workgroup_size(1)
fn main() {
  var sum = 0.0lf;
  for (var i = 0u; i < p.n; i++) { sum += f64(a[2u * i]) * f64(a[2u * i + 1u]) / 3.0lf; }
  let hi = f32(sum);
  let mid = f32(sum - f64(hi));
  y[0] = hi;
  y[1] = mid;
  y[2] = f32(sum - f64(hi) - f64(mid));
}`,
  bindings: { a: "read f32", y: "write f32" },
  params: { n: "u32" },
  features: () => ["shader-f64"],
});

async function doubles(gpu: Gpu) {
  if (!gpu.features.has("shader-f64")) return { granted: false };
  const n = 1000, next = uniform(3);
  const values = Float32Array.from({ length: 2 * n }, () => next() - 0.5);
  let sum = 0;
  for (let i = 0; i < n; i++) sum += values[2 * i] * values[2 * i + 1] / 3;
  const a = gpu.memory.alloc(values.byteLength, "a", "report"), y = gpu.memory.alloc(16, "y", "report");
  gpu.upload(a, new Uint8Array(values.buffer));
  const r = gpu.recorder();
  r.dispatch(dot64, { bind: { a, y }, params: { n }, grid: [1, 1, 1] });
  using plan = r.finish("dot64");
  plan.run();
  const [hi, mid, low] = new Float32Array((await gpu.read({ buffer: y }))[0]);
  [a, y].forEach((b) => gpu.memory.free(b));
  const f64 = await arithmetic(gpu, "f64"), f32 = await arithmetic(gpu, "f32");
  return {
    granted: true,
    dotRelativeError: Math.abs(hi + mid + low - sum) / Math.abs(sum),
    gflops: f64,
    f32Gflops: f32,
    shareOfF32: round(f64 / f32),
  };
}

const twoSums = defineKernel({
  name: "report_two_sums",
  source: `@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  zero_bits = zero[0];
  let u = a[2u * id.x];
  let v = a[2u * id.x + 1u];
  let s = u + v;
  y[4u * id.x] = s;
  y[4u * id.x + 1u] = (u - (s - (s - u))) + (v - (s - u));
  let exact = two_sum(u, v);
  y[4u * id.x + 2u] = exact.x;
  y[4u * id.x + 3u] = exact.y;
}`,
  bindings: { a: "read f32", zero: "read u32", y: "write f32" },
  params: {},
  snippets: () => [eft],
});

/** Shares of random pairs for which TwoSum is exact, as written and through the barrier. */
async function compensated(gpu: Gpu) {
  const n = 4096, next = uniform(5);
  const values = Float32Array.from({ length: 2 * n }, () => (next() - 0.5) * 2 ** (24 * next() - 12));
  const a = gpu.memory.alloc(values.byteLength, "a", "report");
  const zero = gpu.memory.alloc(16, "zero", "report");
  const y = gpu.memory.alloc(16 * n, "y", "report");
  gpu.upload(a, new Uint8Array(values.buffer));
  const r = gpu.recorder();
  r.dispatch(twoSums, { bind: { a, zero, y }, grid: [n / 64, 1, 1] });
  using plan = r.finish("two sums");
  plan.run();
  const out = new Float32Array((await gpu.read({ buffer: y }))[0]);
  [a, zero, y].forEach((b) => gpu.memory.free(b));
  const exact = (at: number) => {
    let hits = 0;
    for (let i = 0; i < n; i++) {
      const [u, v] = [values[2 * i], values[2 * i + 1]];
      const s = Math.fround(u + v);
      // The sum of two f32 whose exponents differ by less than 29 is exact in f64.
      if (out[4 * i + at] === s && out[4 * i + at + 1] === u + v - s) hits++;
    }
    return round(hits / n);
  };
  return { plainTwoSumExact: exact(0), barrierTwoSumExact: exact(2) };
}

/** Microseconds on the host, and of a dispatch, a pass and a submit in all. */
async function costs(gpu: Gpu) {
  const { device } = gpu;
  const buffers = ["a", "b"].map((name) => gpu.memory.alloc(256, name, "report"));
  const plan = (length: number) => {
    const r = gpu.recorder();
    for (let i = 0; i < length; i++) recordIncrease(r, buffers[i % 2], 1);
    return r.finish("tiny");
  };
  const words = new Uint32Array(4);
  using one = plan(1);
  using many = plan(2000);
  const hostReplay = await hostMicroseconds(gpu, 1, () => many.run()) / 2000;
  const encoded = (passes: number) => {
    const encoder = device.createCommandEncoder();
    for (let i = 0; i < passes; i++) encoder.beginComputePass().end();
    device.queue.submit([encoder.finish()]);
  };
  const passes = (await hostMicroseconds(gpu, 1, () => encoded(400)) -
    await hostMicroseconds(gpu, 1, () => encoded(1))) / 399;
  const results = {
    hostReplayPerDispatch: round(hostReplay),
    hostPlanOfOne: await hostMicroseconds(gpu, 200, () => one.run()),
    hostEmptyPass: round(passes),
    hostEmptySubmit: await hostMicroseconds(gpu, 200, () => device.queue.submit([])),
    hostSmallWriteBuffer: await hostMicroseconds(
      gpu,
      200,
      () => device.queue.writeBuffer(buffers[0].gpu, 0, words),
    ),
    hostCreateBuffer: await hostMicroseconds(gpu, 100, () => {
      device.createBuffer({ size: 4096, usage: GPUBufferUsage.STORAGE }).destroy();
    }),
    deviceDispatch: round(1000 * await milliseconds(gpu, () => many.run()) / 2000),
    devicePlanOfOne: round(1000 * await milliseconds(gpu, () => one.run(500)) / 500),
    waitForNothingMs: round(await waitMs(gpu)),
  };
  buffers.forEach((b) => gpu.memory.free(b));
  return results;
}

/** GB/s by `queue.writeBuffer`, in pieces as the engine does it and at once, and back. */
async function transfers(gpu: Gpu) {
  const bytes = Math.min(128 * MiB, gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
  const buffer = gpu.memory.alloc(bytes, "upload", "report");
  const host = new Uint8Array(bytes);
  const rate = (ms: number) => round(bytes / ms / 1e6);
  const pieces = await milliseconds(gpu, () => gpu.upload(buffer, host), 3);
  const whole = await milliseconds(gpu, () => gpu.device.queue.writeBuffer(buffer.gpu, 0, host), 3);
  const start = performance.now();
  await gpu.read({ buffer });
  const back = performance.now() - start;
  gpu.memory.free(buffer);
  return { bytes, uploadInPieces: rate(pieces), uploadAtOnce: rate(whole), readBack: rate(back) };
}

/** Is a buffer of the largest promised size granted? Nothing is written to it. */
async function largestBuffer(gpu: Gpu) {
  const { device, limits } = gpu;
  const sizes = [limits.maxBufferSize, 2 ** 31, 2 ** 30, 2 ** 28].filter((n) => n <= limits.maxBufferSize);
  for (const size of new Set(sizes)) {
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    const buffer = device.createBuffer({ size: size - size % 4, usage: GPUBufferUsage.STORAGE });
    const errors = [await device.popErrorScope(), await device.popErrorScope()];
    buffer.destroy();
    if (errors.every((e) => e === null)) return size;
  }
  return 0;
}

/** Both families of the matrix product; where one does not compile, the reason. */
async function products(gpu: Gpu) {
  const families = gpu.class === "cpu" && gpu.subgroupSize === 8 ? ["subgroup", "tiled"] : ["tiled"];
  const sizes: [Layout, number, number, number][] = gpu.class === "gpu"
    ? [["nt", 4096, 4096, 4096], ["nt", 64, 4096, 4096], ["nn", 64, 4096, 4096], ["nt", 1, 4096, 4096]]
    : [["nt", 256, 768, 768], ["nn", 256, 768, 768], ["nt", 1, 3072, 768]];
  const results = [];
  for (const family of families) {
    for (const [layout, M, N, K] of sizes) {
      for (const dtype of ["f32", "bf16"] as Dtype[]) {
        const a = createTensor(gpu, "a", [M, K]);
        const b = createTensor(gpu, "b", layout === "nt" ? [N, K] : [K, N], { dtype });
        const c = createTensor(gpu, "c", [M, N]);
        const entry = { family, layout, size: [M, N, K], dtype };
        try {
          const ctx = { gpu, r: gpu.recorder() };
          matmul(family === "tiled" ? asGpuClass(ctx) : ctx, layout, a, b, c);
          using plan = ctx.r.finish("product");
          const once = await milliseconds(gpu, () => plan.run(), 1);
          const times = Math.max(1, Math.min(500, Math.round(150 / once)));
          const ms = await milliseconds(gpu, () => plan.run(times), 3) / times;
          results.push({ ...entry, gflops: round(2 * M * N * K / ms / 1e6) });
        } catch (error) {
          results.push({ ...entry, error: (error as Error).message });
        }
        [a, b, c].forEach((t) => freeTensor(gpu, t));
      }
    }
  }
  return {
    families,
    notCompiled: families.length < 2 ? "subgroup: it wants subgroups of 8" : undefined,
    results,
  };
}

/** All readable fields of a WebGPU object: they are getters of its prototype. */
function fieldsOf(object: object): Record<string, unknown> {
  const names = Object.keys(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(object)));
  const values = object as Record<string, unknown>;
  return Object.fromEntries(
    names.filter((n) => ["number", "string", "boolean"].includes(typeof values[n])).map((
      n,
    ) => [n, values[n]]),
  );
}

const started = performance.now();
const adapter = await findAdapter();
using gpu = await Gpu.open();
const report = {
  date: new Date().toISOString().slice(0, 10),
  command: "deno run -A bench/device_report.ts",
  runtime: { deno: Deno.version.deno, os: Deno.build.os, arch: Deno.build.arch },
  adapter: { description: gpu.description, class: gpu.class, ...fieldsOf(adapter!.info) },
  features: { listed: [...adapter!.features].sort(), granted: [...gpu.features] },
  limits: { adapter: fieldsOf(adapter!.limits), device: fieldsOf(gpu.limits) },
  largestBufferGranted: await largestBuffer(gpu),
  subgroupSize: gpu.subgroupSize,
  numerics: { ...gpu.numerics, ...await compensated(gpu) },
  f64: await doubles(gpu),
  microseconds: await costs(gpu),
  gigabytesPerSecond: await transfers(gpu),
  products: await products(gpu),
  seconds: 0,
};
report.seconds = round((performance.now() - started) / 1000);
const json = JSON.stringify(report, null, 2) + "\n";
if (flags.out) await Deno.writeTextFile(flags.out, json);
else console.log(json.trimEnd());
