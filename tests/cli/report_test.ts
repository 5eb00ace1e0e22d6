import assert from "node:assert/strict";
import { join } from "node:path";
import { configOf, lineOf, withFolder, writeRun } from "../evaluation/report/_runs.ts";
import { emend, emendJson, exists, refused } from "./_run.ts";

/** Two runs on the same two cases, ROME held both edits and MEMIT one. */
async function twoRuns(folder: string): Promise<string[]> {
  const indices = [0, 1];
  const line = (index: number, ES: number) => lineOf(index, { ES });
  return [
    await writeRun(join(folder, "rome"), configOf({ indices }), [line(0, 1), line(1, 1)]),
    await writeRun(join(folder, "memit"), configOf({ indices, method: "memit" }), [line(0, 1), line(1, 0)]),
  ];
}

Deno.test("emend report prints tables, and as JSON the summaries", () =>
  withFolder(async (folder) => {
    const runs = await twoRuns(folder);
    const { code, stdout, stderr } = await emend(["report", ...runs]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^single edits · facts\.json · tiny\n/);
    assert.match(stdout, /^rome +100\.0 ± 0\.0 \*$/m);
    assert.match(stdout, /^memit +50\.0 ± 98\.0$/m);
    const report = await emendJson(["report", ...runs]);
    assert.deepEqual(Object.keys(report), ["runs", "written"]);
    assert.deepEqual(report.runs.map((run: { label: string }) => run.label), ["rome", "memit"]);
    assert.equal(report.runs[1].summary.metrics.after.ES.mean, 0.5);
    assert.deepEqual(report.runs[0].paths, [runs[0]]);
  }));

Deno.test("emend report writes HTML, Markdown and CSV, over a report of the kind and nothing else", () =>
  withFolder(async (folder) => {
    const runs = await twoRuns(folder);
    const begins = { html: "<!doctype html>", md: "<!-- emend report -->", csv: "run,model," };
    for (const [ending, start] of Object.entries(begins)) {
      const out = join(folder, `report.${ending}`);
      const { written } = await emendJson(["report", ...runs, "--out", out]);
      assert.deepEqual(written, [out]);
      const bytes = await Deno.readTextFile(out);
      assert.ok(bytes.startsWith(start), bytes.slice(0, 100));
      await emendJson(["report", ...runs, "--out", out]);
      assert.equal(await Deno.readTextFile(out), bytes, "the same runs, the same bytes");
      await Deno.writeTextFile(out, "my own work");
      await refused(["report", ...runs, "--out", out], /Cannot replace .*report\.\w+: it is not a report/);
      assert.equal(await Deno.readTextFile(out), "my own work");
    }
    const cases = join(folder, "cases.csv");
    const { stdout } = await emend(["report", ...runs, "--out", cases, "--cases"]);
    assert.equal(stdout, `written: ${cases}\n`);
    assert.match(await Deno.readTextFile(cases), /^memit,memit,single,case-1,1,after,Ranking,ES,0\r$/m);
  }));

Deno.test("emend report refuses what it cannot show, in one sentence, and writes nothing", () =>
  withFolder(async (folder) => {
    const [rome] = await twoRuns(folder);
    const out = join(folder, "report.html");
    await refused(
      ["report", join(folder, "none"), "--out", out],
      /Cannot read the run .*none: there is no such folder/,
    );
    await refused(
      ["report", rome, "--out", join(folder, "report.pdf")],
      /is an \.html, \.md or \.csv file, not/,
    );
    await refused(["report", rome, "--cases"], /--cases wants --out FILE\.csv/);
    await refused(["report", rome, rome], /is given twice/);
    await refused(["report"], /missing required argument/);
    await Deno.writeTextFile(join(rome, "cases.jsonl"), JSON.stringify(lineOf(0)) + "\n");
    const { stderr } = await refused(["report", rome, "--out", out], /1 of its 2 cases are missing/);
    assert.match(stderr, /--partial/);
    assert.equal(await exists(out), false);
    const { runs } = await emendJson(["report", rome, "--partial"]);
    assert.deepEqual([runs[0].missing, runs[0].label], [1, "rome [1 of 2 cases]"]);
  }));
