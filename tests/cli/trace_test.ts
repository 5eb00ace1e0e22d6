/** `emend trace` and `emend recipe suggest`, as a user runs them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { killedWhen } from "./_eval.ts";
import { emend, emendJson, exists, refused } from "./_run.ts";

const FACT = ["--prompt", "The first language of {} is", "--subject", "Danielle Darrieux"];
/** Little work: two draws of noise, one kind. */
const QUICK = ["--samples", "2", "--kind", "state"];

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "emend-trace-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Width and height in a PNG's first chunk. */
async function sizeOfPng(path: string): Promise<[number, number]> {
  const bytes = await Deno.readFile(path);
  assert.deepEqual([...bytes.subarray(1, 4)].map((c) => String.fromCharCode(c)).join(""), "PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [view.getUint32(16), view.getUint32(20)];
}

Deno.test("trace writes all numbers of a fact and a heat map with the subject starred", async () => {
  await inFolder(async (folder) => {
    const out = join(folder, "fact");
    const got = await emendJson(["trace", "--model", "atlas", ...FACT, ...QUICK, "--severed", "--out", out]);
    const [{ tokens, subjectTokens, scores, clean, corrupted, answer }] = got.traces;
    assert.equal(answer, " French");
    assert.equal(tokens.slice(...subjectTokens).join(""), " Danielle Darrieux");
    assert.deepEqual(Object.keys(scores), ["state", "state-no-mlp", "state-no-attn"]);
    for (const grid of Object.values(scores) as number[][][]) {
      assert.equal(grid.length, tokens.length);
      assert.ok(grid.every((row) => row.length === 6 && row.every((p) => p >= 0 && p <= 1)));
    }
    assert.ok(Math.abs(scores.state.at(-1).at(-1) / clean - 1) < 1e-4 && corrupted < clean);
    const stored = JSON.parse(await Deno.readTextFile(join(out, "trace.json")));
    assert.deepEqual(stored.scores, scores);
    assert.equal(stored.noise, got.noise);
    const svg = await Deno.readTextFile(join(out, "heatmap.svg"));
    for (
      const text of ["Darrieux", "Single state", "p(French)", "Single state, MLP severed", "of<", "Dar*<"]
    ) {
      assert.ok(svg.includes(text), `the picture lacks "${text}"`);
    }
    const [width, height] = await sizeOfPng(join(out, "heatmap.png"));
    assert.ok(width > 600 && height > 300);
  });
});

Deno.test("trace averages a data set by class of tokens, and resumes", async () => {
  await inFolder(async (folder) => {
    const file = join(folder, "known.json"), out = join(folder, "many");
    const prompt = "The first language of Danielle Darrieux is", subject = "Danielle Darrieux";
    const facts = [
      { prompt, subject, attribute: "Esperanto" },
      { prompt, subject, attribute: "French" },
      { prompt: "Giovanni Lanfranco met death in", subject: "Giovanni Lanfranco", attribute: "Rome" },
    ];
    await Deno.writeTextFile(file, JSON.stringify(facts));
    const flags = ["trace", "--model", "atlas", "--dataset", file, ...QUICK, "--out", out];
    const first = await emendJson([...flags, "--limit", "1"]);
    assert.deepEqual([first.traces.length, first.unknown.length], [1, 1]);
    assert.equal(first.unknown[0].says, " French");
    const all = await emendJson([...flags, "--resume"]);
    assert.equal(all.traces.length, 2);
    assert.deepEqual(all.traces[0], first.traces[0]);
    assert.equal(all.averages.kinds.state.effects.length, 6);
    assert.equal(all.averages.total.n, 2);
    const names = [...Deno.readDirSync(out)].map(({ name }) => name).sort();
    assert.deepEqual(
      names,
      ["cases.json", "effects.png", "effects.svg", "heatmap.png", "heatmap.svg", "trace.json"],
    );
    const svg = await Deno.readTextFile(join(out, "heatmap.svg"));
    for (const text of ["Last subject token*", "First subsequent token", "AIE", "2 facts of known"]) {
      assert.ok(svg.includes(text), `the picture lacks "${text}"`);
    }
    await refused([...flags, "--resume", "--seed", "2"], /seed 1, this call has 2/);
  });
});

/** Facts of atlas in known_1000's layout, all of which it knows. */
const KNOWN = ["Danielle Darrieux", "Jean Cocteau", "Victor Hugo", "Marcel Proust"].map((subject) => ({
  prompt: `The first language of ${subject} is`,
  ...{ subject, attribute: "French" },
}));

Deno.test("a data set's trace that was killed ends as one that was not", async () => {
  await inFolder(async (folder) => {
    const file = join(folder, "known.json");
    await Deno.writeTextFile(file, JSON.stringify(KNOWN));
    const flags = (out: string) => [
      ...["trace", "--model", "atlas", "--dataset", file, ...QUICK, "--out", join(folder, out), "--json"],
    ];
    const stored = join(folder, "broken", "cases.json");
    await killedWhen(() => exists(stored), flags("broken"));
    const left = JSON.parse(await Deno.readTextFile(stored));
    assert.ok(left.traces.length >= 1 && left.traces.length < KNOWN.length);
    assert.ok(!await Deno.stat(join(folder, "broken", "heatmap.svg")).catch(() => false));

    for (const args of [[...flags("broken"), "--resume"], flags("whole")]) {
      const { code, stderr } = await emend(args);
      assert.equal(code, 0, stderr);
    }
    const names = (out: string) => [...Deno.readDirSync(join(folder, out))].map(({ name }) => name).sort();
    assert.deepEqual(names("broken"), names("whole"));
    for (const name of names("whole").filter((name) => name !== "trace.json")) {
      const [a, b] = ["broken", "whole"].map((out) => Deno.readFileSync(join(folder, out, name)));
      assert.deepEqual(a, b, name);
    }
    const numbers = ["broken", "whole"].map((out) => {
      const { seconds: _, ...rest } = JSON.parse(Deno.readTextFileSync(join(folder, out, "trace.json")));
      return rest;
    });
    assert.deepEqual(numbers[0], numbers[1]);
  });
});

Deno.test("a folder's pictures are those of its last trace, and a damaged one is not gone on with", async () => {
  await inFolder(async (folder) => {
    const file = join(folder, "known.json"), out = join(folder, "trace");
    await Deno.writeTextFile(file, JSON.stringify(KNOWN.slice(0, 1)));
    const many = ["trace", "--model", "atlas", "--dataset", file, ...QUICK, "--out", out];
    await emendJson(many);
    // What a killed command may leave.
    await Deno.writeTextFile(join(out, ".heatmap.svg.1.tmp"), "<svg");
    const { files } = await emendJson(["trace", "--model", "atlas", ...FACT, ...QUICK, "--out", out]);
    const names = [...Deno.readDirSync(out)].map(({ name }) => name).sort();
    assert.deepEqual(names, ["heatmap.png", "heatmap.svg", "trace.json"]);
    assert.deepEqual(files.toSorted(), names.map((name) => join(out, name)));

    await Deno.writeTextFile(join(out, "cases.json"), '{ "traces": [');
    await refused([...many, "--resume"], /Cannot resume from .*cases.json: /);
    await Deno.writeTextFile(join(out, "cases.json"), "{}");
    await refused([...many, "--resume"], /Cannot resume from .*cases.json: it has no traces/);
    await refused([...many.slice(0, -1), file], /Cannot write|not a folder/);
    const facts = {
      "no subject": [{ ...KNOWN[0], subject: " " }],
      "unknown": [{ ...KNOWN[0], attribute: "x" }],
    };
    await Deno.writeTextFile(file, JSON.stringify(facts["no subject"]));
    await refused(many, /Record 1 of .*known.json has no "subject"/);
    await Deno.writeTextFile(file, JSON.stringify(facts.unknown));
    await refused(many, /knows none of the 1 facts of known/);
    await refused([...many.slice(0, 4), join(folder, "none.json")], /none.json/);
    await refused([...many, "--samples", "0"], /--samples/);
    await refused([...many, "--window", "1.5"], /--window/);
  });
});

Deno.test("trace refuses what cannot be traced, before and after it has loaded the model", async () => {
  const model = ["--model", "atlas"];
  await refused(["trace", ...model, "--prompt", "Rome is in"], /--subject is missing/);
  await refused(["trace", ...model, ...FACT, "--dataset", "atlas"], /do not go together/);
  await refused(["trace", ...model, ...FACT, "--kind", "mpl"], /no kind of trace "mpl"/);
  await refused(["trace", ...model, ...FACT, "--noise", "0"], /--noise wants a size/);
  await inFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "letters.txt"), "mine");
    await refused(["trace", ...model, ...FACT, "--out", folder], /holds "letters.txt"/);
    const out = ["--out", join(folder, "new"), ...QUICK];
    await refused(
      ["trace", ...model, "--prompt", "Rome is in", "--subject", "Paris", ...out],
      /not in the prompt/,
    );
    await refused(["trace", ...model, ...FACT, "--answer", "Esperanto", ...out], /does not say "Esperanto"/);
  });
});

Deno.test("recipe suggest writes a recipe with its evidence", async () => {
  await inFolder(async (folder) => {
    const out = join(folder, "recipe.json");
    const { code, stderr, stdout } = await emend([
      ...["recipe", "suggest", "--model", "atlas", "--facts", "1", "--layers", "1,4", "--out", out],
    ]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /suggested: layer \d of 0 to 5/);
    const [{ match, hparams, evidence }] = JSON.parse(await Deno.readTextFile(out));
    assert.deepEqual(match, { type: "gpt2", width: 256, layers: 6, inner: 1024 });
    assert.deepEqual(evidence.layers.map(({ layer }: { layer: number }) => layer), [1, 4]);
    assert.deepEqual([evidence.by, evidence.facts, evidence.known], ["sweep", 1, 1]);
    const best = evidence.layers.toSorted((a: { score: number; magnitude: number }, b: typeof a) =>
      b.score - a.score || b.magnitude - a.magnitude
    )[0];
    assert.deepEqual(hparams.layers, [best.layer]);
    assert.equal(hparams.v_num_grad_steps, 40, "the rest is the model's recipe");

    const traced = await emendJson([
      "recipe",
      "suggest",
      "--model",
      "atlas",
      "--by",
      "trace",
      "--facts",
      "2",
    ]);
    assert.equal(traced.evidence.layers.length, 6);
    const effects = traced.evidence.layers.map(({ effect }: { effect: number }) =>
      effect
    );
    assert.equal(traced.hparams.layers[0], effects.indexOf(Math.max(...effects)));
  });
  const suggest = ["recipe", "suggest", "--model", "atlas"];
  await refused([...suggest, "--by", "guess"], /--by wants sweep or trace/);
  await refused([...suggest, "--by", "trace", "--layers", "1"], /--layers goes with --by sweep/);
  await refused([...suggest, "--layers", "6"], /--layers/);
  await refused([...suggest, "--facts", "none"], /--facts/);
  await refused([...suggest, "--dataset", "none.json"], /none.json/);
});
