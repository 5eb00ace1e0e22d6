/**
 * Every kernel that engine/kernels declares, as a pipeline under the limits that every WebGPU device has: 8
 * storage buffers, 16 KiB of workgroup memory, 256 invocations. Creating shows what is wrong; nothing runs.
 */
import assert from "node:assert/strict";
import { Gpu } from "../engine/gpu/device.ts";
import { kernelKey, type Variant } from "../engine/gpu/kernel.ts";
import { allKernels, FACTORIES, kernelTable, variantsOf } from "../tools/kernel_table.ts";

const declared = await allKernels();
const portable = Gpu.open({ portable: true });

for (const { kernel, file } of declared) {
  Deno.test(`${kernel.name} (${file}) compiles in every variant under the portable limits`, async () => {
    const gpu = await portable;
    assert.equal(gpu.limits.maxStorageBuffersPerShaderStage, 8);
    const granted = (v: Variant) => (kernel.features?.(v) ?? []).every((f) => gpu.features.has(f));
    const variants = variantsOf(kernel).filter(granted);
    if (variants.length === 0) {
      console.log(`skipped: ${kernel.name}, which needs a feature that this device lacks`);
    }
    for (const variant of variants) {
      for (const gated of [false, true]) {
        gpu.device.pushErrorScope("validation");
        gpu.pipeline(kernel, variant, gated);
        const error = await gpu.device.popErrorScope();
        assert.equal(error?.message, undefined, kernelKey(kernel, variant, gated));
      }
    }
  });
}

Deno.test("kernels have names of their own and at most 64 bytes of parameters", () => {
  const names = declared.map(({ kernel }) => kernel.name);
  assert.deepEqual(names.filter((name, i) => names.indexOf(name) !== i), []);
  for (const { kernel } of declared) {
    assert.match(kernel.name, /^[a-z][a-z0-9_]*$/);
    assert.ok(Object.keys(kernel.params).length * 4 <= 64, kernel.name);
  }
});

Deno.test("allKernels() knows every exported function that makes kernels", () => {
  const folder = new URL("../engine/kernels/", import.meta.url);
  const makers = [...Deno.readDirSync(folder)].flatMap((
    { name },
  ) => [
    ...Deno.readTextFileSync(new URL(name, folder)).matchAll(/^export function (\w+)\([^)]*\): Kernel\b/gm),
  ]);
  assert.deepEqual(makers.map(([, name]) => name), Object.keys(FACTORIES));
});

Deno.test("variantsOf() covers every pair of values when a kernel has many variants", () => {
  const { kernel } = declared.find(({ kernel }) => kernel.name === "matmul_tiled")!;
  const made = variantsOf(kernel);
  const axes = Object.entries(kernel.variants!);
  assert.ok(made.length < 64, `${made.length}`);
  for (const [a, xs] of axes) {
    for (const [b, ys] of axes.filter(([name]) => name !== a)) {
      for (const x of xs) {
        for (const y of ys) assert.ok(made.some((v) => v[a] === x && v[b] === y), `${a} ${b}`);
      }
    }
  }
});

Deno.test("docs/kernels.md is what the declarations say", async () => {
  const doc = await Deno.readTextFile(new URL("../docs/kernels.md", import.meta.url));
  assert.ok(doc === await kernelTable(), "Run deno run -A tools/kernel_table.ts");
});
