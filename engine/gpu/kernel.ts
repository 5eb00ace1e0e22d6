/**
 * A kernel is WGSL plus a table. The table (bindings, parameters, variants) is the single source of the
 * generated WGSL header, the bind group layout, the uniform block, the pipeline key and the error texts.
 *
 * Group 0 holds the storage bindings in the table's order; group 1 is the uniform block with a dynamic
 * offset, the same layout for all kernels.
 */
import { GpuError } from "./errors.ts";

/**
 * How a kernel uses a binding. `write` covers all it touches without reading it; `update` reads and writes.
 * The word after it is the WGSL element type of the runtime-sized array.
 */
export type Binding = `${"read" | "write" | "update"} ${Element}`;
export type Element =
  | "f32"
  | "u32"
  | "i32"
  | "f64"
  | "vec2<f32>"
  | "vec4<f32>"
  | "vec4<u32>"
  | "vec4<u64>"
  | "atomic<u32>";
export type VariantValue = number | boolean | string;
export type Variant = Record<string, VariantValue>;
export type Feature = "subgroups" | "shader-f64" | "wgpu-shader-int64" | "shader-f16";

/** The declaration of one kernel. */
export interface Kernel {
  /** Unique; the label of its pipeline and of its errors. */
  readonly name: string;
  /** WGSL without bindings and parameters: those are generated. Entry point `main`. */
  readonly source: string;
  readonly bindings: Readonly<Record<string, Binding>>;
  /** Fields of the uniform struct `p`, 64 bytes at most. */
  readonly params: Readonly<Record<string, "u32" | "i32" | "f32">>;
  /** Compile-time constants with their allowed values; numbers and booleans become WGSL constants. */
  readonly variants?: Readonly<Record<string, readonly VariantValue[]>>;
  /** Shared WGSL text put before the source. */
  readonly snippets?: (variant: Variant) => string[];
  /** Unrolled blocks: a line `//#name` in the source is replaced by the text given here. */
  readonly blocks?: (variant: Variant) => Record<string, string>;
  readonly features?: (variant: Variant) => Feature[];
}

/** Declares a kernel; only checks the table. */
export function defineKernel(kernel: Kernel): Kernel {
  const words = Object.keys(kernel.params).length;
  if (words > 16) throw new GpuError(`Kernel ${kernel.name} has ${words} parameters; 16 fit into 64 bytes`);
  return kernel;
}

/** Completes a variant with the first allowed value of each axis and refuses unknown values. */
export function resolveVariant(kernel: Kernel, given: Variant = {}): Variant {
  const axes = kernel.variants ?? {};
  for (const name of Object.keys(given)) {
    if (!(name in axes)) throw new GpuError(`Kernel ${kernel.name} has no variant axis "${name}"`);
  }
  const full: Variant = {};
  for (const [name, allowed] of Object.entries(axes)) {
    const value = given[name] ?? allowed[0];
    if (!allowed.includes(value)) {
      throw new GpuError(
        `Kernel ${kernel.name} has no variant ${name}=${value}; it has ${allowed.join(", ")}`,
      );
    }
    full[name] = value;
  }
  return full;
}

/** The pipeline key: name, variant and whether the `gate` binding is there. */
export function kernelKey(kernel: Kernel, variant: Variant, gated: boolean): string {
  const axes = Object.entries(variant).map(([k, v]) => `${k}=${v}`).join(",");
  return `${kernel.name}(${axes})${gated ? "+gate" : ""}`;
}

/**
 * The whole WGSL text of one variant. A gated kernel gets one more binding, and returns at once when the
 * first word of `gate` is not zero: how a finished optimisation loop costs next to nothing. The gate is
 * bound as a uniform, because portable devices have no ninth storage binding.
 */
export function kernelSource(kernel: Kernel, variant: Variant, gated: boolean): string {
  const bindings = Object.entries(kernel.bindings).map(([name, spec], i) => {
    const [access, element] = splitBinding(spec);
    const mode = access === "read" ? "read" : "read_write";
    return `@group(0) @binding(${i}) var<storage, ${mode}> ${name}: array<${element}>;`;
  });
  if (gated) {
    bindings.push(`@group(0) @binding(${bindings.length}) var<uniform> gate: vec4<u32>;`);
  }
  const fields = Object.entries(kernel.params).map(([name, type]) => `  ${name}: ${type},`);
  if (fields.length === 0) fields.push("  unused: u32,");
  const constants = Object.entries(variant).flatMap(([name, value]) => {
    if (typeof value === "number") return [`const ${name}: u32 = ${value}u;`];
    if (typeof value === "boolean") return [`const ${name}: bool = ${value};`];
    return [];
  });
  let body = kernel.source;
  for (const [name, text] of Object.entries(kernel.blocks?.(variant) ?? {})) {
    const mark = new RegExp(`^[ \\t]*//#${name}[ \\t]*$`, "m");
    if (!mark.test(body)) throw new GpuError(`Kernel ${kernel.name} has no line //#${name}`);
    while (mark.test(body)) body = body.replace(mark, () => text);
  }
  if (gated) body = addGate(kernel.name, body);
  return [
    `struct Params {\n${fields.join("\n")}\n}`,
    ...bindings,
    "@group(1) @binding(0) var<uniform> p: Params;",
    ...constants,
    ...(kernel.snippets?.(variant) ?? []),
    body,
  ].join("\n");
}

/** Splits "read f32" into its two words. */
export function splitBinding(spec: Binding): [access: "read" | "write" | "update", element: Element] {
  const at = spec.indexOf(" ");
  return [spec.slice(0, at) as "read" | "write" | "update", spec.slice(at + 1) as Element];
}

function addGate(name: string, body: string): string {
  const start = body.indexOf("fn main(");
  const brace = body.indexOf(") {", start);
  if (start < 0 || brace < 0) throw new GpuError(`Kernel ${name} has no entry point "fn main(…) {"`);
  return body.slice(0, brace + 3) + "\n  if (gate.x != 0u) { return; }" + body.slice(brace + 3);
}

/** Repeats a line with an index; a step for each index may be given: unrolled code stays readable. */
export function unroll(count: number, line: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => line(i)).join("\n");
}
