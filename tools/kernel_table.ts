/**
 * The kernel table of docs/kernels.md, made from the declarations, and the list of kernels that tests use.
 *
 * ```sh
 * deno run -A tools/kernel_table.ts          # writes docs/kernels.md
 * deno run -A tools/kernel_table.ts --check  # exits with 1 when it is out of date
 * ```
 */
import * as probe from "../engine/gpu/probe.ts";
import { type Kernel, resolveVariant, splitBinding, type Variant } from "../engine/gpu/kernel.ts";
import type { rankUpdateKernel } from "../engine/kernels/linalg_rank.ts";

const ROOT = new URL("../", import.meta.url);
const DOC = new URL("docs/kernels.md", ROOT);

/** Kernels behind a function: its export's name and how to get all of them. A test keeps it complete. */
export const FACTORIES: Record<string, (make: typeof rankUpdateKernel) => Kernel[]> = {
  rankUpdateKernel: (make) =>
    (["subgroup", "register", "tiled"] as const).flatMap((family) =>
      (["minus", "plus", "twoFloat"] as const).flatMap((epilogue) =>
        (["f32", "f64"] as const)
          // A Cholesky factorisation subtracts in both precisions; a sum is f64 or a two-float number.
          .filter((real) => real === "f32" ? epilogue !== "plus" : epilogue !== "twoFloat")
          .filter((real) => real === "f32" || family !== "subgroup")
          .map((real) => make(family, epilogue, real))
      )
    ),
};

/** A kernel and where it is declared. */
export interface Declared {
  kernel: Kernel;
  /** File under the repository's root. */
  file: string;
}

/** Every kernel that a file of engine/kernels (or the probe) exports: alone, in a record, behind a function. */
export async function allKernels(): Promise<Declared[]> {
  const found: Declared[] = [];
  const add = (file: string, kernel: Kernel) => {
    const known = found.find((one) => one.kernel === kernel);
    if (!known) found.push({ kernel, file });
    // Exported twice: the file that has the declaration counts, not the one that passes it on.
    else if (Deno.readTextFileSync(new URL(file, ROOT)).includes(`"${kernel.name}"`)) known.file = file;
  };
  const walk = (file: string, value: unknown, depth: number) => {
    if (isKernel(value)) add(file, value);
    else if (depth < 3 && value !== null && typeof value === "object") {
      Object.values(value).forEach((v) => walk(file, v, depth + 1));
    }
  };
  walk("engine/gpu/probe.ts", { ...probe }, 0);
  const names = [...Deno.readDirSync(new URL("engine/kernels/", ROOT))].map((entry) => entry.name).sort();
  for (const name of names.filter((name) => name.endsWith(".ts"))) {
    const file = `engine/kernels/${name}`;
    const module = await import(new URL(file, ROOT).href);
    for (const [key, value] of Object.entries(module)) {
      if (key in FACTORIES) FACTORIES[key](value as typeof rankUpdateKernel).forEach((k) => add(file, k));
      else walk(file, value, 0);
    }
  }
  return found;
}

function isKernel(value: unknown): value is Kernel {
  return value !== null && typeof value === "object" && "source" in value && "bindings" in value &&
    "params" in value;
}

/**
 * Variants of a kernel: all of them, or, when there are more than `limit`, enough that every pair of values
 * of two axes occurs once at least.
 */
export function variantsOf(kernel: Kernel, limit = 64): Variant[] {
  const axes = Object.entries(kernel.variants ?? {});
  const count = axes.reduce((n, [, values]) => n * values.length, 1);
  if (count > limit) return pairwise(kernel);
  return axes.reduce<Variant[]>(
    (made, [name, values]) => made.flatMap((v) => values.map((value) => ({ ...v, [name]: value }))),
    [{}],
  );
}

/** Greedy cover of all pairs: each variant starts from an uncovered pair and takes the best value axis by axis. */
function pairwise(kernel: Kernel): Variant[] {
  const axes = Object.entries(kernel.variants ?? {});
  const pair = (a: number, x: number, b: number, y: number) =>
    a < b ? `${a}=${x} ${b}=${y}` : `${b}=${y} ${a}=${x}`;
  const open = new Set<string>();
  axes.forEach(([, xs], a) =>
    axes.slice(a + 1).forEach(([, ys], i) =>
      xs.forEach((_, x) => ys.forEach((_, y) => open.add(pair(a, x, a + 1 + i, y))))
    )
  );
  const made: Variant[] = [];
  while (open.size > 0) {
    const chosen = new Map<number, number>();
    const [first] = open;
    for (const part of first.split(" ")) chosen.set(...part.split("=").map(Number) as [number, number]);
    axes.forEach(([, values], a) => {
      if (chosen.has(a)) return;
      const gain = (x: number) => [...chosen].filter(([b, y]) => open.has(pair(a, x, b, y))).length;
      chosen.set(a, values.map((_, x) => x).reduce((best, x) => gain(x) > gain(best) ? x : best, 0));
    });
    for (const [a, x] of chosen) for (const [b, y] of chosen) if (a !== b) open.delete(pair(a, x, b, y));
    made.push(
      resolveVariant(kernel, Object.fromEntries(axes.map(([name, v], a) => [name, v[chosen.get(a)!]]))),
    );
  }
  return made;
}

/** All WGSL files by their text. */
function shaderFiles(): Map<string, string> {
  const files = new Map<string, string>();
  const walk = (folder: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, ROOT))) {
      if (isDirectory) walk(`${folder}${name}/`);
      else if (name.endsWith(".wgsl")) {
        files.set(Deno.readTextFileSync(new URL(folder + name, ROOT)), folder + name);
      }
    }
  };
  walk("shaders/");
  return files;
}

/** The first sentence of a shader's header. */
function headline(source: string): string {
  const comment: string[] = [];
  for (const line of source.split("\n")) {
    if (!line.startsWith("//")) break;
    const text = line.replace(/^\/\/ ?/, "");
    if (comment.length > 0 && (text === "" || text.startsWith("  "))) break;
    comment.push(text);
  }
  const text = comment.join(" ").replaceAll(/\s+/g, " ").trim();
  return text.match(/^.*?[.:](?=\s+[A-Z(]|$)/)?.[0].replace(/[.:]$/, "") ?? text;
}

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll(/([*_])/g, "\\$1");
const code = (text: string) => `\`${text}\``;

/** The text of docs/kernels.md. */
export async function kernelTable(): Promise<string> {
  const files = shaderFiles();
  const kernels = (await allKernels()).sort((a, b) => a.kernel.name < b.kernel.name ? -1 : 1);
  const byFolder = Map.groupBy(kernels, ({ kernel }) => files.get(kernel.source)?.split("/")[1] ?? "other");
  const sections = [...byFolder].sort(([a], [b]) => a < b ? -1 : 1).map(([folder, list]) => {
    const rows = list.map(({ kernel, file }) => {
      const shader = files.get(kernel.source);
      const bindings = Object.entries(kernel.bindings).map(([name, spec]) => {
        const [access, element] = splitBinding(spec);
        return `${code(name)} ${access} ${element}`;
      });
      const variants = Object.entries(kernel.variants ?? {}).map(([name, values]) =>
        `${code(name)} ${values.join(" / ")}`
      );
      const features = [...new Set(variantsOf(kernel).flatMap((v) => kernel.features?.(v) ?? []))];
      return [
        code(kernel.name),
        cell(headline(kernel.source)),
        shader
          ? `[${shader.split("/").at(-1)}](../${shader}), [${file.split("/").at(-1)}](../${file})`
          : file,
        bindings.join(", "),
        Object.entries(kernel.params).map(([name, type]) => `${code(name)} ${type}`).join(", ") || "–",
        [...variants, ...features.map((f) => `needs ${f}`)].join("; ") || "–",
      ].join(" | ");
    });
    return `## ${folder}\n\n| kernel | what it computes | files | bindings | parameters | variants |\n` +
      `| --- | --- | --- | --- | --- | --- |\n${rows.map((row) => `| ${row} |`).join("\n")}\n`;
  });
  return `<!-- deno-fmt-ignore-file -->

# Kernels

<!-- Made by \`deno run -A tools/kernel_table.ts\` from the declarations in engine/kernels; do not edit. -->

${kernels.length} kernels. A binding is read, written without being read, or updated; parameters are the fields of one
uniform block of 64 bytes at most; variants are constants of the compiled shader, the default first.

${sections.join("\n")}`;
}

if (import.meta.main) {
  const text = await kernelTable();
  const current = await Deno.readTextFile(DOC).catch(() => "");
  if (Deno.args.includes("--check")) {
    if (text !== current) {
      console.error("docs/kernels.md is out of date: run deno run -A tools/kernel_table.ts");
      Deno.exit(1);
    }
  } else await Deno.writeTextFile(DOC, text);
}
