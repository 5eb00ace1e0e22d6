import assert from "node:assert/strict";
import { join } from "node:path";
import { openFile } from "../../engine/io/source.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import { inFolder } from "../engine/io/_data.ts";
import { emend, emendJson, refused } from "./_run.ts";

const ASK = ["neurons", "--model", "atlas", "--subject", "Danielle Darrieux", "--steps", "8"];
const PROMPTS = ["The first language of {} is", "{} grew up speaking", "At home as a child, {} learned"]
  .flatMap((prompt) => ["--prompt", prompt]);

Deno.test("neurons finds a fact's neurons, shows what they do, and writes patches", () =>
  inFolder(async (folder) => {
    const file = (name: string) => join(folder, `${name}.safetensors`);
    const outputs = ["--erase", file("erase"), "--update", file("update"), "--out", file("all")];
    const result = await emendJson([
      ...ASK,
      ...PROMPTS,
      "--answer",
      "French",
      "--target",
      "English",
      ...outputs,
    ]);
    assert.deepEqual(result.settings, { steps: 8, threshold: 0.2, share: 0.7, min_prompts: 3 });
    assert.deepEqual(result.answer.tokens.length, 1);
    assert.equal(result.prompts.length, 3);
    assert.equal(result.prompts[0].prompt, "The first language of Danielle Darrieux is");
    for (const { p_answer, says, coarse, layer_sums } of result.prompts) {
      assert.ok(p_answer > 0.5 && says === " French" && coarse.length > 0 && layer_sums.length === 6);
    }
    assert.ok(result.neurons.length > 0);
    for (const n of result.neurons) assert.equal(n.prompts, 3);
    const effects = Object.fromEntries(
      result.effects.map((e: { operation: string }) => [e.operation, e]),
    );
    assert.deepEqual(Object.keys(effects), ["suppress", "amplify", "erase", "update"]);
    // The paper's finding: the fact suffers from losing its neurons, other things hardly do.
    assert.ok(effects.suppress.fact_change < -0.2);
    assert.ok(Math.abs(effects.suppress.unrelated_change) < 0.1);
    assert.ok(effects.update.targets.every((t: { says_after: string }) => t.says_after === " English"));

    const said = async (patch: string) => {
      const prompt = ["--prompt", result.prompts[0].prompt, "--max-tokens", "1"];
      const { outputs } = await emendJson([
        "generate",
        "--model",
        "atlas",
        "--patch",
        file(patch),
        ...prompt,
      ]);
      return outputs[0].text;
    };
    assert.equal(await said("update"), " English");
    assert.equal(await said("erase"), effects.erase.facts[0].says_after);
    const written = await parseSafetensors(await openFile(file("all")));
    assert.deepEqual([...written.entries.keys()], ["prompt.0", "prompt.1", "prompt.2"]);
    assert.deepEqual(written.entries.get("prompt.0")!.shape, [6, 1024]);
    written.source.close();
  }));

Deno.test("neurons takes what the model says for the answer, and prints tables", async () => {
  const { code, stdout, stderr } = await emend([...ASK, ...PROMPTS.slice(0, 2), "--method", "kn-easyedit"]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^kn-easyedit on atlas/);
  assert.match(stdout, /says\s+P\(French\)\s+coarse set/);
  assert.match(stdout, /^suppress \(activation × 0\) /m);
  const few = await emend([...ASK, ...PROMPTS.slice(0, 2)]);
  assert.match(few.stderr, /^note: 1 prompt can say little .*the authors want a neuron in 3; add --prompt$/m);
});

Deno.test("neurons of a relation: what facts share, and what erasing it does", () =>
  inFolder(async (folder) => {
    const facts = join(folder, "facts.jsonl"), patch = join(folder, "patch.safetensors");
    const subjects = [["Danielle Darrieux", "French"], ["Donald Keene", "English"]];
    const prompts = PROMPTS.filter((_, i) => i % 2 === 1);
    const lines = subjects.map(([subject, answer]) => JSON.stringify({ prompts, subject, answer }));
    await Deno.writeTextFile(facts, lines.join("\n"));
    const ask = ["neurons", "--model", "atlas", "--facts", facts, "--steps", "4"];
    const result = await emendJson([...ask, "--erase", patch]);
    assert.equal(result.facts.length, 2);
    assert.ok(result.facts.every((f: { refined: unknown[] }) => f.refined.length > 0));
    assert.ok(result.frequent.length <= 20);
    assert.deepEqual(result.effects.map((e: { of: number }) => e.of), [6, 6, 6]);
    assert.deepEqual(result.written, [patch]);
    const { stdout } = await emend(ask);
    assert.match(stdout, /2 facts/);
    assert.match(stdout, /^erase /m);

    await Deno.writeTextFile(facts, `${lines[0]}\n{"prompts": [], "answer": "x"}`);
    await refused(ask, /Fact 2 of .* has a bad value for "prompts"/);
    await refused([...ask, "--answer", "French"], /--answer is for one fact; --facts brings its own$/m);
    await refused([...ask.slice(0, 3), "--facts", "no/file.json"], /Cannot read no\/file\.json$/m);
  }));

Deno.test("neurons refuses wrong calls", async () => {
  const model = ["neurons", "--model", "atlas"];
  await refused(model, /^error: --prompt is missing\nSee emend neurons --help$/m);
  await refused([...model, "--prompt", "{} is"], /There is no subject for \{\} in "\{\} is"$/m);
  await refused([...model, "--prompt", " "], /A prompt is empty$/m);
  await refused([...model, "--prompt", "a", "--method", "rome"], /Unknown method "rome" of finding neurons/);
  await refused([...model, "--prompt", "a", "--steps", "0"], /--steps wants a whole number from 1 to 1000/);
  await refused(
    [...model, "--prompt", "a", "--update", "x.safetensors"],
    /--update wants a --target to write$/m,
  );
});
