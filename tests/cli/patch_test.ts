/** `emend patch` as a user runs it. No test here needs a device but the one that generates. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import { type Patch, readPatch, writePatch } from "../../patches/patch.ts";
import { inFolder } from "../engine/io/_data.ts";
import { assertSameFiles, copyFolder, filesOf, modelFolder, noisePatch } from "../patches/_models.ts";
import { ATLAS, command, emend, emendJson, exists, refused } from "./_run.ts";

const GPT2 = modelFolder("gpt2-tiny"), LLAMA = modelFolder("llama-tiny");
const SMOL = modelFolder("smollm2-tiny");
const NAMES = ["show", "apply", "revert", "stack", "merge", "diff", "import", "export"];

/** Writes patches of seeded noise for a model; returns their paths. */
async function writePatches(folder: string, model: string, count: number): Promise<string[]> {
  const base = await openCheckpoint(model);
  const paths: string[] = [];
  for (let i = 0; i < count; i++) {
    const path = join(folder, `p${i + 1}.safetensors`);
    await writePatch(path, await noisePatch(base, { [`layer.${i % 2}.mlp.down`]: 1 + i % 2 }, 100 * (i + 1)));
    paths.push(path);
  }
  base.close();
  return paths;
}

Deno.test("patch and each of its sub-commands have help with an example", async () => {
  const { code, stdout } = await emend(["patch", "--help"]);
  assert.equal(code, 0);
  for (const name of NAMES) assert.match(stdout, new RegExp(`^  ${name} `, "m"));
  await Promise.all(NAMES.map(async (name) => {
    const { code, stdout } = await emend(["patch", name, "--help"]);
    assert.equal(code, 0);
    assert.match(
      stdout,
      new RegExp(`^Usage: emend patch ${name} [\\s\\S]*--json[\\s\\S]*\nExample:\n  deno run `),
      name,
    );
  }));
  const bare = await emend(["patch"]);
  assert.deepEqual([bare.code, bare.stdout], [2, ""]);
  assert.match(bare.stderr, /^Usage: emend patch/);
});

Deno.test("patch apply, revert and stack: a stack of 20 without the 7th is the one that never had it", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    await copyFolder(GPT2, path("base"));
    const files = await writePatches(folder, path("base"), 20);
    const others = files.filter((_, i) => i !== 6);
    const stacked = await emendJson(["patch", "stack", ...files, "--patch", path("all")]);
    assert.deepEqual(stacked.written, [path("all")]);
    assert.deepEqual(
      stacked.patches.map(({ number }: { number: number }) => number),
      files.map((_, i) => i + 1),
    );
    assert.equal(stacked.patches[6].requests[0].subject, "City 700");
    await emendJson(["patch", "stack", path("all"), "--without", "7", "--patch", path("by-number")]);
    await emendJson(["patch", "stack", path("all"), "--without", files[6], "--patch", path("by-file")]);
    await emendJson(["patch", "stack", ...others, "--patch", path("never")]);
    const never = await Deno.readFile(path("never"));
    assert.deepEqual(await Deno.readFile(path("by-number")), never);
    assert.deepEqual(await Deno.readFile(path("by-file")), never);

    const apply = (out: string, ...patches: string[]) =>
      emendJson(["patch", "apply", "--model", path("base"), "--patch", ...patches, "--out", path(out)]);
    const applied = await apply("edited", path("all"));
    assert.equal(applied.patches.length, 20);
    assert.ok(applied.revert.bytes > 0 && await exists(applied.revert.file));
    // deno-lint-ignore no-explicit-any -- parsed JSON
    applied.weights_changed.forEach((change: any) => {
      assert.deepEqual(Object.keys(change), ["tensor", "shape", "rank", "frobenius", "relative", "realised"]);
      assert.ok(change.realised.error > 0 && change.realised.error < 1e-6);
    });
    await apply("never-edited", ...others);
    const original = await filesOf(path("base"));
    await Deno.remove(path("base"), { recursive: true });

    const revert = (...flags: string[]) =>
      emendJson(["patch", "revert", "--model", path("edited"), ...flags]);
    const partial = await revert("--without", files[6], "--out", path("without"));
    assert.deepEqual([partial.removed, partial.patches.length], [1, 19]);
    assertSameFiles(await filesOf(path("without")), await filesOf(path("never-edited")));
    const whole = await revert("--out", path("edited"));
    assert.deepEqual([whole.removed, whole.patches], [20, []]);
    const back = await filesOf(path("edited"));
    assert.deepEqual(Object.keys(back).sort(), ["config.json", "model.safetensors"]);
    for (const [name, bytes] of Object.entries(back)) assert.deepEqual(bytes, original[name], name);
  });
});

Deno.test("patch show tells people and programs what a patch is", async () => {
  await inFolder(async (folder) => {
    const [one, two] = await writePatches(folder, LLAMA, 2);
    const { patches } = await emendJson(["patch", "show", one, two, "--model", LLAMA]);
    const [{ base, requests, tensors, weights_changed, ...first }, second] = patches;
    assert.deepEqual([first.file, first.method, first.base_matches], [one, "rome", true]);
    assert.equal(base.name, "llama-tiny");
    assert.equal(requests[0].subject, "City 100");
    const [tensor] = tensors;
    assert.deepEqual([tensor.tensor, tensor.shape, tensor.rank, tensor.kind, tensor.bytes], [
      "model.layers.0.mlp.down_proj.weight",
      [32, 88],
      1,
      "low-rank",
      4 * (32 + 88),
    ]);
    assert.ok(Math.abs(weights_changed[0].frobenius / tensor.frobenius - 1) < 1e-9);
    assert.equal(second.tensors[0].rank, 2);
    const other = await emendJson(["patch", "show", one, "--model", GPT2]);
    assert.deepEqual([other.patches[0].base_matches, other.patches[0].weights_changed], [false, undefined]);

    const { code, stdout } = await emend(["patch", "show", one, "--model", GPT2]);
    assert.equal(code, 0);
    assert.match(stdout, /^base: +llama-tiny, llama, hash [0-9a-f]{64}$/m);
    assert.match(stdout, /gpt2-tiny is NOT its base\./);
    assert.match(stdout, /^1 +rome +City 100 is in → Italy/m);
    assert.match(stdout, /^model\.layers\.0\.mlp\.down_proj\.weight +\[32, 88\] +1 +\d/m);
  });
});

Deno.test("patch merge writes apply's weights without a trace, and diff makes a patch of them", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    const files = await writePatches(folder, SMOL, 2);
    const flags = ["--model", SMOL, "--patch", files[0], "--patch", files[1]];
    await emendJson(["patch", "apply", ...flags, "--out", path("applied")]);
    await emendJson(["patch", "merge", ...flags, "--out", path("merged")]);
    const [applied, merged] = [await filesOf(path("applied")), await filesOf(path("merged"))];
    assert.deepEqual(Object.keys(merged).sort(), ["config.json", "model.safetensors"]);
    assert.deepEqual(merged["model.safetensors"], applied["model.safetensors"]);

    const dense = await emendJson(["patch", "diff", SMOL, path("merged"), "--patch", path("d.safetensors")]);
    // deno-lint-ignore no-explicit-any -- parsed JSON
    assert.deepEqual(dense.different.map((d: any) => [d.tensor, d.inexact]), [
      ["model.layers.0.mlp.down_proj.weight", 0],
      ["model.layers.1.mlp.down_proj.weight", 0],
    ]);
    await emendJson([
      "patch",
      "merge",
      "--model",
      SMOL,
      "--patch",
      path("d.safetensors"),
      "--out",
      path("again"),
    ]);
    assertSameFiles(await filesOf(path("again")), merged);
    const base = await emendJson([
      "patch",
      "revert",
      "--model",
      path("merged"),
      "--base",
      SMOL,
      "--out",
      path("base"),
    ]);
    assert.equal(base.removed, null);
    const name = "model.safetensors";
    assert.deepEqual((await filesOf(path("base")))[name], await Deno.readFile(join(SMOL, name)));

    const ranks = ["--max-rank", "4", "--patch", path("r.safetensors")];
    const low = await emendJson(["patch", "diff", SMOL, path("merged"), ...ranks]);
    // deno-lint-ignore no-explicit-any -- parsed JSON
    assert.deepEqual(low.different.map((d: any) => d.rank), [1, 2]);
    const compared = await emendJson(["patch", "diff", files[0], path("r.safetensors")]);
    assert.equal(compared.same_base, true);
    assert.ok(compared.tensors[0].cosine > 0.9999);
    assert.equal(compared.requests.only_a.length, 1);
    const { code, stdout } = await emend(["patch", "diff", files[0], files[1]]);
    assert.equal(code, 0);
    assert.match(stdout, /^Both are for smollm2-tiny/);
    assert.match(stdout, /^requests: 0 in both, 1 only in .*p1\.safetensors, 1 only in /m);
  });
});

Deno.test("patch export and import: an adapter comes back as the change that it was", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    const files = await writePatches(folder, GPT2, 3);
    const out = await emendJson(["patch", "export", ...files, "--peft", path("adapter")]);
    assert.deepEqual(out.written, [path("adapter")]);
    await emendJson([
      "patch",
      "import",
      "--peft",
      path("adapter"),
      "--model",
      GPT2,
      "--patch",
      path("imported"),
    ]);
    const stack = path("stack.safetensors");
    await emendJson(["patch", "stack", ...files, "--patch", stack]);
    const numbers = ({ deltas, base }: Patch) => ({ deltas: deltas.map((d) => ({ ...d, ranks: [] })), base });
    assert.deepEqual(numbers(await readPatch(path("imported"))), numbers(await readPatch(stack)));
    await emendJson(["patch", "merge", "--model", GPT2, "--patch", path("imported"), "--out", path("a")]);
    await emendJson(["patch", "merge", "--model", GPT2, "--patch", ...files, "--out", path("b")]);
    assertSameFiles(await filesOf(path("a")), await filesOf(path("b")));
  });
});

Deno.test("generate from an applied folder says what generate with the patch says", async () => {
  await inFolder(async (folder) => {
    const [patch] = await writePatches(folder, ATLAS, 1), out = join(folder, "edited");
    await emendJson(["patch", "apply", "--model", "atlas", "--patch", patch, "--out", out]);
    const prompt = ["--prompt", "The capital of France is", "--max-tokens", "8"];
    const [saved, patched, plain] = await Promise.all(
      [["--model", out], ["--model", "atlas", "--patch", patch], ["--model", "atlas"]]
        .map((flags) => emendJson(["generate", ...flags, ...prompt])),
    );
    assert.deepEqual(saved, patched);
    assert.notDeepEqual(saved, plain);
  });
});

Deno.test("patch refuses calls that are wrong, before any work", async () => {
  await inFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    const [one, two] = await writePatches(folder, LLAMA, 2);
    await Deno.writeTextFile(path("file"), "text");
    await Deno.mkdir(path("full"));
    await Deno.writeTextFile(path("full/thesis.txt"), "the only copy");
    await copyFolder(LLAMA, path("plain"));
    const cut = (await Deno.readFile(one)).subarray(0, 300);
    await Deno.writeFile(path("cut"), cut);
    const before = (await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name).sort();
    const apply = (...flags: string[]) => ["patch", "apply", "--model", LLAMA, ...flags];
    // There is no such model either: whoever looks for it first says so.
    const none = (name: string, ...flags: string[]) => ["patch", name, "--model", "no/model", ...flags];
    const cases: [string[], RegExp][] = [
      [["patch", "shwo", one], /^error: unknown command 'shwo'\n\(Did you mean show\?\)$/m],
      [["patch", "show"], /^error: missing required argument 'file'$/m],
      [["patch", "show", path("cut")], /^error: Cannot read .*cut: it claims a header of/m],
      [["patch", "show", "cli.ts"], /^error: Cannot read cli\.ts: /m],
      [["patch", "show", "none"], /^error: No such file: none$/m],
      [apply("--out", path("x")), /^error: --patch is missing$/m],
      [apply("--patch", one), /^error: required option '--out <dir>' not specified$/m],
      [
        ["patch", "apply", "--model", GPT2, "--patch", one, "--out", path("x")],
        /^error: .*p1\.safetensors was made for model .* \(llama-tiny\); this model is .* \(gpt2-tiny\)\n/m,
      ],
      [
        ["patch", "merge", "--model", GPT2, "--patch", one, "--out", path("x")],
        /^error: .*p1\.safetensors was made for model .* \(llama-tiny\); this model is .* \(gpt2-tiny\)\n/m,
      ],
      [apply("--patch", one, "--out", LLAMA), /its base model is there\n/],
      [none("apply", "--patch", one, "--out", path("full")), /holds something other than a model\n/],
      [
        none("apply", "--patch", one, "--out", path("file/x")),
        /^error: Cannot write .*file\/x: Not a directory/m,
      ],
      [none("merge", "--patch", one, "--out", path("full")), /holds something other than a model\n/],
      [none("import", "--peft", path("none"), "--patch", path("file")), /file: it is not a patch\n/],
      [
        ["patch", "revert", "--model", path("plain"), "--out", path("full")],
        /holds something other than a model/,
      ],
      [
        ["patch", "revert", "--model", path("plain"), "--out", path("x")],
        /no record of applied patches\n.*--base$/m,
      ],
      [
        ["patch", "revert", "--model", one, "--out", path("x")],
        /^error: .*p1\.safetensors is no model folder$/m,
      ],
      [["patch", "export", one, "--peft", path("full")], /holds something other than a model/],
      [["patch", "stack", one, two, "--patch", path("file")], /file: it is not a patch\n/],
      [
        ["patch", "stack", one, two, "--without", "3", "--patch", path("x")],
        /^error: There is no patch 3: there are 2$/m,
      ],
      [
        ["patch", "stack", one, "--without", two, "--patch", path("x")],
        /^error: .*p2\.safetensors is not among these/m,
      ],
      [
        ["patch", "stack", one, "--without", "1", "--patch", path("x")],
        /^error: A stack needs at least one patch$/m,
      ],
      [["patch", "diff", one, LLAMA], /^error: .*llama-tiny is a model and .*p1\.safetensors is not\n/m],
      [
        ["patch", "diff", one, two, "--patch", path("x")],
        /^error: --patch writes the difference of two models/m,
      ],
      [["patch", "diff", LLAMA, LLAMA, "--patch", path("x")], /do not differ: there is nothing to write$/m],
      [["patch", "diff", LLAMA, GPT2, "--patch", path("x")], /is no edit of .*: they do not share/],
      [["patch", "diff", LLAMA, LLAMA, "--max-rank", "2"], /^error: --max-rank is for --patch$/m],
      [["patch", "diff", LLAMA, "none"], /^error: No such patch or model: none$/m],
      [
        ["patch", "import", "--peft", LLAMA, "--model", LLAMA, "--patch", path("x")],
        /^error: No such file: .*adapter_config/m,
      ],
    ];
    for (const [args, message] of cases) await refused(args, message);
    assert.deepEqual((await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name).sort(), before);
  });
});

Deno.test("patch apply killed while it writes leaves the old folder whole", async () => {
  await inFolder(async (folder) => {
    const out = join(folder, "out");
    const [one, two] = await writePatches(folder, ATLAS, 2);
    const apply = (patch: string) => ["patch", "apply", "--model", "atlas", "--patch", patch, "--out", out];
    await emendJson(apply(one));
    const before = await filesOf(out);
    const child = command(apply(two)).spawn();
    const half = async () => {
      const names = (await Array.fromAsync(Deno.readDir(folder))).map((e) => e.name);
      return names.some((name) => name.startsWith(".out.") && name.endsWith(".tmp"));
    };
    for (let i = 0; i < 2000 && !await half(); i++) await new Promise((done) => setTimeout(done, 2));
    child.kill("SIGKILL");
    await child.output();
    assertSameFiles(await filesOf(out), before);
    await emendJson(apply(two));
    assert.notDeepEqual((await filesOf(out))["model.safetensors"], before["model.safetensors"]);
  });
});
