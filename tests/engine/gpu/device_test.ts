/** Opening devices, transfers in pieces, and GPU errors that become exceptions. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Gpu } from "../../../engine/gpu/device.ts";
import { GpuError } from "../../../engine/gpu/errors.ts";
import { defineKernel } from "../../../engine/gpu/kernel.ts";
import { installHint } from "../../../engine/gpu/platform.ts";
import { withGpu } from "../../_gpu.ts";
import { recordFill, words } from "./_kernels.ts";

function bytesOf(n: number): Uint8Array {
  const bytes = new Uint8Array(n);
  for (let i = 0; i < n; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + (i >> 16)) & 255;
  return bytes;
}

Deno.test(
  "upload() and read() carry every byte when the data is longer than a piece of 8 MiB",
  withGpu(async (gpu) => {
    for (const n of [3, 4, 8 << 20, (8 << 20) + 5, (17 << 20) + 2]) {
      const bytes = bytesOf(n);
      const buffer = gpu.memory.alloc(n, "big", "test");
      gpu.upload(buffer, bytes);
      const [whole] = await gpu.read({ buffer, bytes: n });
      assert.ok(Buffer.compare(new Uint8Array(whole).subarray(0, n), bytes) === 0, `${n} bytes`);
      gpu.memory.free(buffer);
    }
  }),
);

Deno.test(
  "upload() and read() keep to their range when an offset is given",
  withGpu(async (gpu) => {
    const [a, b] = ["a", "b"].map((name) => gpu.memory.alloc(64, name, "test"));
    gpu.upload(a, bytesOf(16), 8);
    gpu.upload(b, new Uint8Array(64).fill(9));
    const waits = gpu.waits;
    const [head, tail, middle] = await gpu.read({ buffer: a, bytes: 32 }, { buffer: a, offset: 48 }, {
      buffer: b,
      bytes: 8,
      offset: 4,
    });
    assert.equal(gpu.waits, waits + 1, "one wait for all");
    assert.deepEqual([...new Uint8Array(head)], [...new Uint8Array(8), ...bytesOf(16), ...new Uint8Array(8)]);
    assert.deepEqual([...new Uint8Array(tail)], [...new Uint8Array(16)]);
    assert.deepEqual([...new Uint8Array(middle)], new Array(8).fill(9));
    assert.throws(
      () => gpu.upload(a, new Uint8Array(60), 8),
      /^GpuError: Cannot write 60 bytes at 8 into a of 64$/,
    );
    [a, b].forEach((buffer) => gpu.memory.free(buffer));
  }),
);

Deno.test(
  "read() gives each caller its own data when two run at once",
  withGpu(async (gpu) => {
    const buffers = [1, 2, 3].map((value) => {
      const buffer = gpu.memory.alloc(1 << 16, `b${value}`, "test");
      gpu.upload(buffer, new Uint8Array(1 << 16).fill(value));
      return buffer;
    });
    const read = await Promise.all(buffers.map((buffer) => gpu.read({ buffer })));
    assert.deepEqual(read.map(([bytes]) => new Uint8Array(bytes)[777]), [1, 2, 3]);
    buffers.forEach((buffer) => gpu.memory.free(buffer));
  }),
);

Deno.test("sync() throws a GpuError that names the kernel when its WGSL is wrong", async () => {
  using gpu = await Gpu.open();
  const wrong = defineKernel({
    name: "test_wrong",
    source: "@compute @workgroup_size(1) fn main() { y[0] = nonsense; }",
    bindings: { y: "write u32" },
    params: {},
  });
  const y = gpu.memory.alloc(16, "y", "test");
  const r = gpu.recorder();
  r.dispatch(wrong, { bind: { y }, grid: [1, 1, 1] });
  r.finish("wrong plan").run();
  await assert.rejects(gpu.sync(), (error) => {
    assert.ok(error instanceof GpuError);
    assert.match(error.message, /test_wrong/);
    assert.match(error.message, /nonsense/);
    return true;
  });
  await gpu.sync();
});

Deno.test("read() throws a GpuError when a buffer is used after it was freed, and then works again", async () => {
  using gpu = await Gpu.open();
  const [gone, kept] = ["gone", "kept"].map((name) => gpu.memory.alloc(256, name, "test"));
  const r = gpu.recorder();
  recordFill(r, gone, 1);
  const plan = r.finish("late");
  gpu.memory.free(gone);
  plan.run();
  await assert.rejects(gpu.read({ buffer: kept }), { name: "GpuError", message: /gone/ });
  assert.equal((await words(gpu, kept))[0], 0);
});

Deno.test("check() throws once, and counts what else went wrong", async () => {
  using gpu = await Gpu.open();
  for (let i = 0; i < 3; i++) gpu.device.createBuffer({ label: `odd ${i}`, size: 16, usage: 0xffff });
  await assert.rejects(gpu.sync(), /\(and 2 more\)$/);
  gpu.check();
});

Deno.test("pipeline() refuses a kernel whose feature the device was opened without", async () => {
  using gpu = await Gpu.open({ without: ["shader-f64", "subgroups", "wgpu-shader-int64"] });
  assert.deepEqual([gpu.features.size, gpu.subgroupSize, gpu.numerics.f64], [0, 0, false]);
  const needy = defineKernel({
    name: "test_needy",
    source: "@compute @workgroup_size(1) fn main() {}",
    bindings: {},
    params: {},
    features: () => ["shader-f64"],
  });
  assert.throws(
    () => gpu.pipeline(needy, {}, false),
    /^GpuError: Kernel test_needy\(\) needs the feature shader-f64$/,
  );
});

Deno.test("pipeline() compiles a variant once", async () => {
  const compiled: string[] = [];
  using gpu = await Gpu.open({ onCompile: (name) => compiled.push(name) });
  compiled.length = 0;
  const kernel = defineKernel({
    name: "test_once",
    source: "@compute @workgroup_size(WG) fn main() {}",
    bindings: {},
    params: {},
    variants: { WG: [8, 16] },
  });
  for (const WG of [8, 16, 8]) gpu.pipeline(kernel, { WG }, false);
  gpu.pipeline(kernel, { WG: 8 }, true);
  assert.deepEqual(compiled, ["test_once(WG=8)", "test_once(WG=16)", "test_once(WG=8)+gate"]);
});

Deno.test("open() keeps to the limits of every device when it is portable", async () => {
  using gpu = await Gpu.open({ portable: true });
  assert.equal(gpu.limits.maxStorageBuffersPerShaderStage, 8);
  assert.equal(gpu.limits.maxComputeWorkgroupStorageSize, 16384);
  assert.equal(gpu.limits.maxStorageBufferBindingSize, 128 << 20);
  const y = gpu.memory.alloc(256, "y", "test");
  const r = gpu.recorder();
  for (let i = 0; i < 5; i++) recordFill(r, y, i);
  using plan = r.finish();
  plan.run();
  assert.equal((await words(gpu, y))[0], 4, "uniform offsets follow the device's alignment");
});

Deno.test(
  "open() refuses a software driver when a GPU is required",
  withGpu(async (gpu) => {
    if (gpu.class === "gpu") {
      using other = await Gpu.open({ requireGpu: true });
      assert.equal(other.class, "gpu");
    } else {
      await assert.rejects(Gpu.open({ requireGpu: true }), {
        name: "GpuError",
        message: `The only adapter is a software driver (${gpu.description})\nCheck the GPU's driver`,
      });
    }
  }),
);

/** What a new process says when it opens a device under this environment. */
async function opening(env: Record<string, string>): Promise<string> {
  const device = new URL("../../../engine/gpu/device.ts", import.meta.url);
  const code = `const { Gpu } = await import("${device}");
    await Gpu.open().then(() => console.log("open"), (e) => console.log(e.name + ": " + e.message));`;
  const args = ["eval", "--no-lock", code];
  const { stdout } = await new Deno.Command(Deno.execPath(), { args, env }).output();
  return new TextDecoder().decode(stdout).trim();
}

const NO_ADAPTER = `GpuError: No GPU adapter was found, not even a software one\n${installHint()}`;

Deno.test("open() says what to install when there is no adapter", async () => {
  const backend = Deno.build.os === "windows" ? "metal" : "dx12";
  assert.equal(await opening({ DENO_WEBGPU_BACKEND: backend }), NO_ADAPTER);
  for (const os of ["linux", "darwin", "windows", "browser"]) assert.ok(!installHint(os).includes("\n"));
});

Deno.test({
  name: "open() does not fall back to OpenGL when there is no Vulkan driver",
  ignore: Deno.build.os !== "linux",
  fn: async () => assert.equal(await opening({ VK_DRIVER_FILES: "/nonexistent" }), NO_ADAPTER),
});

Deno.test(
  "the numerics probe trusts bits, and compensated sums where it says so",
  withGpu((gpu) => {
    assert.ok(gpu.numerics.nanByBits);
    assert.ok(gpu.numerics.dotError < 1e-6, "64 terms in f32: √64 · 2^-24 at most");
    assert.equal(gpu.numerics.subgroupSize, gpu.subgroupSize);
    assert.ok(!gpu.numerics.f64 || gpu.features.has("shader-f64"));
  }),
);
