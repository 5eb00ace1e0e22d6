/** From a kernel's table to WGSL. */
import assert from "node:assert/strict";
import { defineKernel, kernelKey, kernelSource, resolveVariant, unroll } from "../../../engine/gpu/kernel.ts";

const kernel = defineKernel({
  name: "test",
  source: "@compute @workgroup_size(WG) fn main(\n) {\n  //#body\n  let x = 1;\n  //#body\n}",
  bindings: { a: "read vec4<f32>", y: "update f32" },
  params: { n: "u32", scale: "f32" },
  variants: { WG: [64, 8], ACC: [false, true], kind: ["plain", "fancy"] },
  snippets: ({ kind }) => [`// ${kind}`],
  blocks: ({ WG }) => ({ body: `y[0] = f32(${WG}); // $& stays` }),
});

Deno.test("kernelSource() declares parameters, bindings, constants, snippets and blocks in order", () => {
  const variant = resolveVariant(kernel, { WG: 8, kind: "fancy" });
  assert.equal(
    kernelSource(kernel, variant, false),
    `struct Params {
  n: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;
const WG: u32 = 8u;
const ACC: bool = false;
// fancy
@compute @workgroup_size(WG) fn main(
) {
y[0] = f32(8); // $& stays
  let x = 1;
y[0] = f32(8); // $& stays
}`,
  );
});

Deno.test("kernelSource() adds the gate as a uniform, which is no ninth storage binding", () => {
  const text = kernelSource(kernel, resolveVariant(kernel), true);
  assert.match(text, /^@group\(0\) @binding\(2\) var<uniform> gate: vec4<u32>;$/m);
  assert.match(text, /fn main\(\n\) \{\n {2}if \(gate\.x != 0u\) \{ return; \}\n/);
});

Deno.test("kernelSource() refuses a source that lacks a block's line or an entry point", () => {
  const bare = { ...kernel, source: "fn other() {}" };
  assert.throws(
    () => kernelSource(bare, resolveVariant(bare), false),
    /^GpuError: Kernel test has no line \/\/#body$/,
  );
  const entry = { ...bare, blocks: undefined };
  assert.throws(() => kernelSource(entry, resolveVariant(entry), true), /Kernel test has no entry point/);
});

Deno.test("resolveVariant() completes with first values and names what it refuses", () => {
  assert.deepEqual(resolveVariant(kernel, { ACC: true }), { WG: 64, ACC: true, kind: "plain" });
  assert.throws(
    () => resolveVariant(kernel, { WG: 32 }),
    /^GpuError: Kernel test has no variant WG=32; it has 64, 8$/,
  );
  assert.throws(
    () => resolveVariant(kernel, { TILE: 1 }),
    /^GpuError: Kernel test has no variant axis "TILE"$/,
  );
  assert.equal(kernelKey(kernel, { WG: 8, ACC: true }, true), "test(WG=8,ACC=true)+gate");
});

Deno.test("defineKernel() refuses more parameters than 64 bytes hold", () => {
  const params = Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`p${i}`, "u32" as const]));
  assert.throws(
    () => defineKernel({ ...kernel, params }),
    /^GpuError: Kernel test has 17 parameters; 16 fit into 64 bytes$/,
  );
});

Deno.test("unroll() repeats a line with its index", () => {
  assert.equal(unroll(3, (i) => `a${i};`), "a0;\na1;\na2;");
});
