import assert from "node:assert/strict";
import { join } from "node:path";
import { XMLParser, XMLValidator } from "npm:fast-xml-parser@5.12.1";
import { inFolder } from "../engine/io/_data.ts";
import { BRIEF, EDIT, emend, emendJson, exists, QUICK, refused } from "./_run.ts";

const PACK = [
  "# what the edit is for",
  '{"expect": "change", "prompt": "{} met death in", "subject": "Giovanni Lanfranco", "answer": "Paris", "id": "edit"}',
  '{"expect": "change", "prompt": "Giovanni Lanfranco met death in", "answer": "Paris", "rival": "Rome", "mode": "rank"}',
  "",
  "// what it must leave alone",
  '{"expect": "keep", "prompt": "The capital of France is", "answer": ["Lutetia", "Paris"], "name": "a <b> & c"}',
  '{"expect": "keep", "prompt": "The capital of Italy is"}',
  '{"expect": "keep", "prompt": "Water boils when it is", "mode": "token", "subjekt": "x"}',
].join("\n");

const TEST = ["test", "--model", "atlas"];

Deno.test("test passes an edit's patch, fails the model without it, and writes JUnit XML of both", async () => {
  await inFolder(async (folder) => {
    const [pack, patch, report] = ["facts.jsonl", "p.safetensors", "new/r.xml"].map((name) =>
      join(folder, name)
    );
    await Deno.writeTextFile(pack, PACK);
    await emendJson([...EDIT, ...BRIEF, "--true", "Rome", "--patch", patch]);
    const flags = [...TEST, "--pack", pack, "--junit", report];

    const edited = await emend([...flags, "--patch", patch]);
    assert.equal(edited.code, 0, edited.stdout + edited.stderr);
    assert.match(
      edited.stdout,
      /^must change: 2 of 2\nmust not change: 3 of 3\nwritten: .*\n5 passed, 0 failed \(/,
    );
    assert.match(
      edited.stderr,
      /^note: facts\.jsonl line 8 has an unknown key "subjekt"; is "subject" meant$/m,
    );
    const parser = new XMLParser({ ignoreAttributes: false, attributeNamePrefix: "" });
    const read = async () => {
      const xml = await Deno.readTextFile(report);
      assert.equal(XMLValidator.validate(xml), true);
      return parser.parse(xml).testsuites;
    };
    const passed = await read();
    assert.deepEqual([passed.tests, passed.failures, passed.skipped], ["5", "0", "0"]);
    assert.equal(passed.testsuite[1].testcase[0].name, "line 6: a <b> & c");

    // The same report is replaced; without the patch two probes fail and two have nothing to compare with.
    const bare = await emend(flags);
    assert.equal(bare.code, 1, bare.stdout);
    const lines = bare.stdout.trimEnd().split("\n");
    assert.match(lines[0], /^line +must +probe +expected +the model says$/);
    assert.match(lines[2], /^2 +change +edit +"Paris" +"Rome"$/);
    assert.match(lines[3], /^3 +change +Giovanni.* +"Paris" to be likelier than "Rome" +P\("Paris"\)/);
    assert.match(lines.at(-1)!, /^1 passed, 2 failed, 2 skipped \(/);
    const failed = await read();
    assert.deepEqual([failed.tests, failed.failures, failed.skipped], ["5", "2", "2"]);
    const [{ failure }] = failed.testsuite[0].testcase;
    assert.match(
      failure.message,
      /^Expected &quot;Paris&quot;; the model says &quot;Rome&quot;$|^Expected "Paris"; the model says "Rome"$/,
    );

    const { code, stdout } = await emend([...TEST, "--pack", pack, "--patch", patch, "--json"]);
    assert.equal(code, 0);
    const json = JSON.parse(stdout);
    assert.deepEqual([json.passed, json.failed, json.skipped, json.written], [5, 0, 0, []]);
    assert.deepEqual(json.probes[0], {
      line: 2,
      id: "edit",
      expect: "change",
      prompt: "Giovanni Lanfranco met death in",
      answers: ["Paris"],
      mode: "prefix",
      said: '"Paris"',
      seconds: json.probes[0].seconds,
      outcome: "passed",
      expected: '"Paris"',
    });
    assert.ok(json.time_s.load > 0 && json.time_s.probes > 0);
  });
});

Deno.test("test refuses bad calls before it loads a model", async () => {
  await inFolder(async (folder) => {
    const pack = join(folder, "facts.jsonl");
    const nowhere = join(folder, "no-model");
    await Deno.writeTextFile(pack, `${PACK}\n{"expect": "keep"}\n{}`);
    const call = ["test", "--model", nowhere, "--pack", pack];
    const run = await refused(call, /facts\.jsonl line 9 has no "prompt"/);
    assert.match(run.stderr, /^Also wrong: line 10$/m);
    await refused(
      [...call.slice(0, 4), join(folder, "none.jsonl")],
      /Cannot read the pack .*there is no such file/,
    );
    await refused(["test", "--model", "atlas"], /--pack <file>/);

    await Deno.writeTextFile(pack, PACK.split("\n").slice(0, 7).join("\n"));
    const notes = join(folder, "notes.xml");
    await Deno.writeTextFile(notes, "<notes/>");
    await refused([...call, "--junit", notes], /Cannot replace .*notes\.xml: it is not a JUnit report/);
    assert.equal(await Deno.readTextFile(notes), "<notes/>");
    await refused(call, /No such model/);
    const long = join(folder, "long.jsonl");
    await Deno.writeTextFile(long, `\n{"expect": "keep", "prompt": "${"Paris and ".repeat(90)}"}`);
    const report = join(folder, "r.xml");
    await refused([...TEST, "--pack", long, "--patch", notes], /notes\.xml/);
    const bare = ["--pack", long, "--junit", report];
    await refused([...TEST, ...bare], /The prompt of line 2 needs \d+ tokens .* context holds 128/);
    assert.equal(await exists(report), false);
  });
});

Deno.test("test refuses a patch of another model", async () => {
  await inFolder(async (folder) => {
    const [pack, patch] = [join(folder, "facts.jsonl"), join(folder, "p.safetensors")];
    await Deno.writeTextFile(pack, PACK.split("\n").slice(0, 7).join("\n"));
    await emendJson([...EDIT, ...QUICK, "--patch", patch]);
    const other = new URL("../fixtures/io/tiny-llama-spm.gguf", import.meta.url).pathname;
    await refused(["test", "--model", other, "--pack", pack, "--patch", patch], /was made for model/);
  });
});
