/**
 * The house rules that a program can check: which way imports point, which words belong where, headers and
 * lengths of files, where shaders are, how dependencies are named and that each is listed with its reason.
 */
import assert from "node:assert/strict";
import { dirname, join, normalize } from "node:path/posix";

const ROOT = new URL("../", import.meta.url);

/** Each layer may import itself and those named; a file belongs to the longest prefix that fits. */
const MAY_IMPORT: Record<string, string[]> = {
  "engine/io": [],
  "engine/gpu": [],
  "engine/tensor": ["engine/gpu"],
  "engine/kernels": ["engine/gpu", "engine/tensor"],
  "engine/ops": ["engine/gpu", "engine/tensor", "engine/kernels"],
  "engine/linalg": ["engine/gpu", "engine/tensor", "engine/kernels", "engine/ops"],
  "engine/models": ["engine/io", "engine/gpu", "engine/tensor", "engine/kernels", "engine/ops"],
  "editors": ["engine"],
  "patches": ["engine", "editors", "deno.json"],
  "evaluation": ["engine", "editors", "patches", "atlas", "deno.json"],
  "atlas": ["engine/io"],
  "training": ["engine", "editors", "evaluation", "atlas", "deno.json"],
  "cli": ["engine", "editors", "patches", "evaluation", "training", "atlas", "mod.ts", "deno.json"],
  "cli.ts": ["cli", "engine", "mod.ts"],
  "mod.ts": ["engine", "editors", "patches", "evaluation", "atlas", "deno.json"],
};

/** What people import; `tools`, `tests` and `bench` may use anything, and nothing uses them. */
const LIBRARY = Object.keys(MAY_IMPORT);

const ML_WORDS = "model layer token logit attention embedding gradient backward softmax neural transformer " +
  "vocabulary weight activation loss optimiser optimizer matmul";

/** `GpuError` and `Gpu` are the engine's own; a WebGPU type begins with GPU. */
const GPU_WORDS =
  /\b(GPU[A-Z]\w*|[Dd]ispatch\w*|WGSL|wgsl|[Ww]orkgroups?|[Bb]ind ?[Gg]roups?|createBuffer|[Ss]haders?|foldGrid)\b/;

interface Import {
  file: string;
  /** As written. */
  specifier: string;
  /** Path under the root, for relative ones. */
  target?: string;
}

function filesUnder(folder: string, ext: string): string[] {
  return [...Deno.readDirSync(new URL(folder, ROOT))].flatMap(({ name, isDirectory }) => {
    const path = `${folder}${name}`;
    if (isDirectory) {
      return name.startsWith(".") || name === "node_modules" ? [] : filesUnder(`${path}/`, ext);
    }
    return path.endsWith(ext) ? [path] : [];
  });
}

function read(path: string): string {
  return Deno.readTextFileSync(new URL(path, ROOT));
}

/** The code without its comments; strings stay. */
function withoutComments(code: string): string {
  return code.replaceAll(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_, kept) => kept ?? " ",
  );
}

function importsOf(file: string): Import[] {
  const code = withoutComments(read(file));
  // Statements begin a line; a word "from" inside a template is none.
  const statement =
    /^(?:import|export)\b(?:[^;"'`]*?\bfrom)?\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/gm;
  return [...code.matchAll(statement)].map(([, a, b]) => {
    const specifier = a ?? b;
    const target = specifier.startsWith(".") ? normalize(join(dirname(file), specifier)) : undefined;
    return { file, specifier, target };
  });
}

/** The folder or file of {@link MAY_IMPORT} (or the top folder) that a path belongs to. */
function layerOf(path: string): string {
  const fits = LIBRARY.filter((layer) => path === layer || path.startsWith(`${layer}/`));
  return fits.sort((a, b) => b.length - a.length)[0] ?? path.split("/")[0];
}

const ts = [
  "",
  "atlas/",
  "bench/",
  "cli/",
  "editors/",
  "engine/",
  "evaluation/",
  "patches/",
  "tests/",
  "tools/",
  "training/",
]
  .flatMap((folder) =>
    folder === ""
      ? [...Deno.readDirSync(ROOT)].map(({ name }) => name).filter((name) => name.endsWith(".ts"))
      : filesUnder(folder, ".ts")
  );
const library = ts.filter((file) => LIBRARY.includes(layerOf(file)));
const imports = ts.flatMap(importsOf);
const wgsl = filesUnder("shaders/", ".wgsl");

Deno.test("imports point down the list of layers", () => {
  const wrong = imports.flatMap(({ file, target }) => {
    const from = layerOf(file);
    if (target === undefined || !(from in MAY_IMPORT)) return [];
    const to = layerOf(target);
    const isData = from === "engine/kernels" || from === "engine/gpu" ? to === "shaders" : false;
    const allowed = to === from || isData ||
      MAY_IMPORT[from].some((layer) => to === layer || to.startsWith(`${layer}/`));
    return allowed ? [] : [`${file} imports ${target}`];
  });
  assert.deepEqual(wrong, []);
  assert.ok(imports.length > 300, `only ${imports.length} imports were found: is the pattern still right?`);
});

Deno.test("files do not import each other in circles, types apart", () => {
  const edges = new Map<string, string[]>();
  for (const file of library) {
    const code = withoutComments(read(file)).replaceAll(/^(import|export) type\b[^;]*;/gm, "");
    const named = [...code.matchAll(/^(?:import|export)\b([^;"'`]*?)\bfrom\s*["'](\.[^"']+\.ts)["']/gm)];
    // An import of types alone, { type A, type B }, is erased as well.
    const used = named.filter(([, what]) => {
      const names = what.match(/\{([\s\S]*)\}/)?.[1].split(",").map((name) => name.trim()).filter(Boolean);
      return !names || names.some((name) => !name.startsWith("type ")) || /^\s*\w/.test(what);
    });
    edges.set(file, used.map(([, , specifier]) => normalize(join(dirname(file), specifier))));
  }
  const done = new Set<string>();
  const visit = (file: string, path: string[]) => {
    assert.ok(!path.includes(file), `${[...path.slice(path.indexOf(file)), file].join(" → ")}`);
    if (done.has(file)) return;
    for (const next of edges.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of edges.keys()) visit(file, []);
});

Deno.test("engine/gpu contains no word of machine learning", () => {
  const words = new RegExp(`\\b(${ML_WORDS.split(" ").join("|")})s?\\b`, "i");
  assert.deepEqual(linesWith(filesUnder("engine/gpu/", ".ts"), words), []);
});

Deno.test("engine/models and editors contain no word of GPU programming", () => {
  const files = [...filesUnder("engine/models/", ".ts"), ...filesUnder("editors/", ".ts")];
  assert.deepEqual(linesWith(files, GPU_WORDS), []);
});

/** Lines of files that a pattern finds, as "file:line: text". */
function linesWith(files: string[], pattern: RegExp): string[] {
  return files.flatMap((file) =>
    read(file).split("\n").flatMap((line, i) =>
      pattern.test(line) ? [`${file}:${i + 1}: ${line.trim()}`] : []
    )
  );
}

Deno.test("every file opens with a comment that says what it is for", () => {
  const tests = (file: string) => file.endsWith("_test.ts");
  const headless = [...ts.filter((file) => !tests(file)), ...wgsl].filter((file) => {
    const text = read(file).replace(/^#![^\n]*\n/, "");
    return !/^(\/\*\*|\/\/ (?!deno-))/.test(text);
  });
  assert.deepEqual(headless, []);
});

Deno.test("files stay short: 400 lines of TypeScript, 150 of WGSL", () => {
  const lines = (file: string) => read(file).split("\n").length - 1;
  const long = [...ts.filter((file) => lines(file) > 400), ...wgsl.filter((file) => lines(file) > 150)];
  assert.deepEqual(long.map((file) => `${file} has ${lines(file)} lines`), []);
});

Deno.test("shaders/ holds WGSL only, and each file is imported as text by somebody", () => {
  assert.deepEqual(filesUnder("shaders/", ""), wgsl, "other files in shaders/");
  const used = new Set(imports.flatMap(({ target }) => target?.endsWith(".wgsl") ? [target] : []));
  assert.deepEqual(wgsl.filter((file) => !used.has(file)), [], "imported by nobody");
  assert.deepEqual([...used].filter((file) => !wgsl.includes(file)), [], "imported, but not there");
  const elsewhere = ["atlas/", "cli/", "editors/", "engine/", "evaluation/", "patches/"].flatMap((f) =>
    filesUnder(f, ".wgsl")
  );
  assert.deepEqual(elsewhere, [], "WGSL outside shaders/");
});

Deno.test("library code names its dependencies in full, with an exact version", () => {
  const full = /^npm:(@[\w.-]+\/)?[\w.-]+@\d+\.\d+\.\d+(-[\w.]+)?(\/[\w./-]+)?$/;
  const wrong = imports.filter(({ file, specifier, target }) =>
    library.includes(file) && target === undefined && !specifier.startsWith("node:") && !full.test(specifier)
  );
  assert.deepEqual(wrong.map(({ file, specifier }) => `${file}: ${specifier}`), []);
});

Deno.test("everything that mod.ts reaches is library code", () => {
  const byFile = Map.groupBy(imports, ({ file }) => file);
  const reached = new Set<string>();
  const queue: string[] = ts.filter((file) => file === "mod.ts");
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (reached.has(file)) continue;
    reached.add(file);
    queue.push(...(byFile.get(file) ?? []).flatMap(({ target }) => target?.endsWith(".ts") ? [target] : []));
  }
  assert.deepEqual([...reached].filter((file) => !library.includes(file)), []);
});

Deno.test("docs/dependencies.md lists every dependency with its version, once, and no other", () => {
  const used = new Set(imports.flatMap(({ specifier }) => {
    const found = specifier.match(/^npm:((?:@[^/]+\/)?[^@/]+@[^/]+)/);
    return found ? [found[1]] : [];
  }));
  const names = [...used].map((dependency) => dependency.slice(0, dependency.lastIndexOf("@")));
  assert.deepEqual(names.filter((name, i) => names.indexOf(name) !== i), [], "in two versions");
  const rows = read("docs/dependencies.md").matchAll(
    /^\| `([^`]+)` +\| ([\w.-]+) +\| [^|]+ +\| \S[^|]+\|$/gm,
  );
  const listed = [...rows].map(([, name, version]) => `${name}@${version}`);
  assert.deepEqual(listed.toSorted(), [...used].sort());
});
