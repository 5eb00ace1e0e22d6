import assert from "node:assert/strict";
import { join } from "node:path";
import { atlasCorpus } from "../../atlas/corpus.ts";
import { readCollectState } from "../../editors/collect_state.ts";
import { readStatistics } from "../../editors/statistics.ts";
import { type NpyArray, npz } from "../editors/_npz.ts";
import { inFolder } from "../engine/io/_data.ts";
import { ATLAS, cacheAt, command, EDIT, emend, emendJson, exists, QUICK, refused, ROOT } from "./_run.ts";

/** Documents for about 6,000 tokens, with an empty line and a last line without its end. */
function corpusText(): string {
  const documents = [...atlasCorpus({ seed: 1 })].slice(0, 70);
  return `\n${documents.join("\n")}`;
}

Deno.test("stats collects several layers of a text file into a folder", async () => {
  await inFolder(async (folder) => {
    const corpus = join(folder, "c.txt"), out = join(folder, "new/stats");
    await Deno.writeTextFile(corpus, corpusText());
    const result = await emendJson(
      [
        "stats",
        "--model",
        "atlas",
        "--layers",
        "1, 0,1",
        "--corpus",
        corpus,
        "--tokens",
        "1500",
        "--out",
        out,
      ],
    );
    assert.equal(result.layers.length, 2, "a layer named twice is one");
    for (const [i, layer] of [1, 0].entries()) {
      const report = result.layers[i];
      assert.equal(report.written, join(out, `layer-${layer}.safetensors`));
      const { origin } = await readStatistics(report.written);
      assert.deepEqual({ ...origin, written: report.written }, report);
      assert.deepEqual([origin.layer, origin.tokens, origin.width, origin.corpusName], [
        layer,
        1500,
        1024,
        "c.txt",
      ]);
    }
    const names = (await Array.fromAsync(Deno.readDir(out))).map((e) => e.name).sort();
    assert.deepEqual(names, ["layer-0.safetensors", "layer-1.safetensors"]);

    // What stats wrote, edit takes.
    const flags = ["--stats", join(out, "layer-0.safetensors"), "--set", "layers=[0]", ...QUICK];
    const edit = await emendJson([...EDIT, ...flags]);
    assert.equal(edit.statistics[0].layer, 0);
  });
});

Deno.test("stats without --out goes where edit looks", async () => {
  await inFolder(async (folder) => {
    const corpus = join(folder, "c.txt");
    await Deno.writeTextFile(corpus, corpusText());
    const env = await cacheAt(join(folder, "cache"));
    const flags = ["--layers", "2", "--corpus", corpus, "--tokens", "300"];
    const { code, stdout, stderr } = await emend(["stats", "--model", "atlas", ...flags], env);
    assert.equal(code, 0);
    assert.equal(
      stderr,
      "note: 300 tokens cannot fill statistics of keys with 1024 numbers: edits will want more\n",
    );
    assert.match(
      stdout,
      /^layer 2: 300 tokens of \d+ documents\n {2}.*cache\/emend\/statistics\/.*layer-2-.*-512-300-0\.999\.safetensors\n/,
    );
    assert.match(
      stdout,
      /\nC⁻¹k was not compared: that takes eight times the key's width, 8192 tokens\n\ntime: /,
    );
    const plan = await emendJson([...EDIT, "--set", "layers=[2]", "--dry-run"], env);
    assert.deepEqual(plan.statistics, [{ layer: 2, state: "300 tokens of c.txt" }]);

    // The same collection again is there; another layer is not, and other settings are another collection.
    const again = await emend(["stats", "--model", "atlas", ...flags], env);
    assert.match(again.stdout, /^layer 2: 300 tokens of \d+ documents, made by an earlier run\n/);
    const wide = flags.with(1, "1,2");
    const both = await emend(["stats", "--model", "atlas", ...wide], env);
    assert.match(
      both.stdout,
      /^layer 1: 300 tokens of \d+ documents\n.*\nlayer 2: .*, made by an earlier run\n/,
    );
    const longer = await emend(["stats", "--model", "atlas", ...flags.with(5, "310")], env);
    assert.match(longer.stdout, /^layer 2: 310 tokens of \d+ documents\n/);
    const fresh = await emend(["stats", "--model", "atlas", ...flags, "--fresh"], env);
    assert.match(fresh.stdout, /^layer 2: 300 tokens of \d+ documents\n/);
  });
});

Deno.test("stats imports what ROME's code cached, and refuses what does not fit", async () => {
  await inFolder(async (folder) => {
    // The sum over ten tokens of the embedded model's own C, as NumPy would store it.
    const { lower } = await readStatistics(join(ATLAS, "statistics/layer-1.safetensors"));
    const width = 1024, tokens = 10n;
    const square = Float64Array.from({ length: width ** 2 }, (_, at) => {
      const [j, i] = [at % width, Math.floor(at / width)].sort((a, b) => a - b);
      return lower[i * (i + 1) / 2 + j] * Number(tokens);
    });
    const path = join(folder, "transformer.h.1.mlp.c_proj_float64_mom2_3.npz"), out = join(folder, "s");
    const count: NpyArray = ["<i8", [], BigInt64Array.of(tokens)];
    const sample: NpyArray = ["<i8", [], BigInt64Array.of(3n)];
    const arrays = { "mom2.mom2": ["<f8", [width, width], square] as NpyArray, "mom2.count": count };
    await Deno.writeFile(path, npz({ ...arrays, sample_size: sample }));
    const stats = ["stats", "--model", "atlas", "--import", path];
    const made = await emendJson([...stats, "--layers", "1", "--out", out]);
    const { origin, lower: imported } = await readStatistics(out);
    assert.deepEqual(made, { layers: [{ ...origin, written: out }] });
    assert.deepEqual([origin.tokens, origin.documents, origin.layer], [10, 3, 1]);
    assert.deepEqual(imported, lower);
    const edit = await emendJson([...EDIT, "--stats", out, ...QUICK]);
    assert.equal(edit.statistics[0].layer, 1);
    await refused([...stats, "--layers", "2"], /its name is of layer 1, layer 2 is wanted$/m);
    await refused(
      [...stats, "--layers", "0,1"],
      /^error: --import wants one layer, got 2: a file holds one$/m,
    );
    await refused([...stats, "--layers", "1", "--corpus", "x"], /--import and --corpus exclude each other$/m);
    const small = join(ROOT, "tests/fixtures/io/peer.npz");
    await refused(
      ["stats", "--model", "atlas", "--import", small, "--layers", "1"],
      /its square is \[\d+,\d+\], keys of .* have 1024 numbers$/m,
    );
    await refused(
      ["stats", "--model", "atlas", "--layers", "1"],
      /^error: --corpus is missing\nGive a text file/m,
    );
  });
});

/** Starts a collection that saves after each batch, and kills it when it has seen so many tokens. */
async function killAfter(args: string[], partial: string, tokens: number): Promise<number> {
  const child = command(args).spawn();
  const ended = child.output();
  const deadline = performance.now() + 60_000;
  while (performance.now() < deadline) {
    const state = await exists(partial) ? await readCollectState(partial) : undefined;
    if (state && state.tokens >= tokens) {
      child.kill("SIGKILL");
      await ended;
      return state.tokens;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  child.kill("SIGKILL");
  const { stderr } = await ended;
  throw new Error(`No state of ${tokens} tokens: ${new TextDecoder().decode(stderr)}`);
}

Deno.test("stats killed twice and started again gives the file of a run that was not", async () => {
  await inFolder(async (folder) => {
    const corpus = join(folder, "c.txt");
    await Deno.writeTextFile(corpus, corpusText());
    const args = (out: string) => [
      "stats",
      "--model",
      "atlas",
      "--layers",
      "0,1",
      "--corpus",
      corpus,
      "--tokens",
      "5000",
      "--save-every",
      "0",
      "--out",
      join(folder, out),
    ];
    await emendJson(args("whole"));

    const partial = join(folder, "cut/layer-0.safetensors.partial");
    const first = await killAfter(args("cut"), partial, 1);
    assert.ok(
      !await exists(join(folder, "cut/layer-0.safetensors")),
      "nothing under its name before it is whole",
    );
    const second = await killAfter(args("cut"), partial, first + 1);
    assert.ok(second > first && second < 5000, `${first}, ${second}`);
    const { code, stderr } = await emend(args("cut"));
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^note: going on from \d+ tokens of an interrupted run$/m);
    for (const layer of [0, 1]) {
      const name = `layer-${layer}.safetensors`;
      const [a, b] = await Promise.all(
        ["whole", "cut"].map((run) => Deno.readFile(join(folder, run, name))),
      );
      assert.ok(a.length === b.length && a.every((byte, i) => byte === b[i]), name);
    }
    assert.ok(!await exists(partial), "the unfinished state is gone");
    const names = (await Array.fromAsync(Deno.readDir(join(folder, "cut")))).map((e) => e.name);
    // A kill within a save leaves its temporary file; nothing else may be there.
    const rest = names.filter((name) => !/^\..*\.tmp$/.test(name)).sort();
    assert.deepEqual(rest, ["layer-0.safetensors", "layer-1.safetensors"]);
  });
});
