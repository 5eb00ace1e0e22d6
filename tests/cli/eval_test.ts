/**
 * `emend eval` as a user runs it, on the embedded model with quick edits: what it writes, that it goes on
 * after a kill, that shards make a whole, and that the same command gives the same bytes.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { lockFolder } from "../../engine/io/lock.ts";
import type { CaseLine, RetainedLine, Summary } from "../../evaluation/records.ts";
import { inFolder, killed, linesOf, summaryOf, untimed } from "./_eval.ts";
import { emend, emendJson, exists, QUICK, refused } from "./_run.ts";

const BASE = ["eval", "--model", "atlas", "--dataset", "atlas", ...QUICK];

/** A run of four cases one at a time, which several tests look at; made by the first of them. */
const SINGLE = Deno.makeTempDirSync(), FOUR = [...BASE, "--limit", "4"];
let made: Promise<Summary & { written: string }> | undefined;
const single = () => made ??= emendJson([...FOUR, "--out", join(SINGLE, "run")]);
globalThis.addEventListener("unload", () => Deno.removeSync(SINGLE, { recursive: true }));

Deno.test(
  "eval writes config, a line a case, and a summary; the weights are restored each time",
  async () => {
    const summary = await single();
    const out = join(SINGLE, "run");
    assert.equal(summary.written, out);
    assert.equal(summary.cases, 4);
    assert.equal(summary.restored, true);
    const lines = await linesOf<CaseLine>(join(out, "cases.jsonl"));
    assert.deepEqual(lines.map(({ index }) => index), [0, 1, 2, 3]);
    for (const line of lines) {
      assert.equal(line.restored, true);
      assert.equal(line.probes.length, line.before.probes.length);
      assert.equal(line.probes.length, line.after.probes.length);
      assert.equal(line.metrics.before.ES, 0);
      const [rewrite] = line.after.probes;
      assert.equal(rewrite.answer!.tokens.length, rewrite.answer!.logProbs.length);
      assert.equal(typeof rewrite.text, "string");
    }
    const config = JSON.parse(await Deno.readTextFile(join(out, "config.json")));
    assert.equal(config.format, "emend-run");
    assert.match(config.model.hash, /^[0-9a-f]{64}$/);
    assert.deepEqual(config.indices, [0, 1, 2, 3]);
    // What is there is not run again, and not overwritten either.
    await refused([...FOUR, "--out", out], /already holds a run.*\n.*--resume/);
    await refused([...BASE, "--limit", "3", "--out", out, "--resume"], /another indices/);
    {
      using _other = await lockFolder(out, "config.json");
      await refused(
        [...FOUR, "--out", out, "--resume"],
        /Another process is writing .*run\nWait until it ends/,
      );
    }
    assert.equal(untimed(await emendJson([...FOUR, "--out", out, "--resume"])), untimed(summary));
  },
);

Deno.test(
  "a run that was killed three times ends as one that was not",
  inFolder(async (folder) => {
    const whole = join(folder, "whole"), broken = join(folder, "broken");
    const args = (
      out: string,
    ) => [...BASE, "--limit", "2", "--metrics", "generate,drift,fluency", "--out", out];
    await emendJson(args(whole));
    // In the first case, in the second, and as soon as it goes on.
    for (const lines of [0, 1, 1]) {
      await killed([...args(broken), "--resume"], join(broken, "cases.jsonl"), lines);
    }
    // A kill in the middle of a write leaves a torn line.
    await Deno.writeTextFile(join(broken, "cases.jsonl"), '{"id":"torn', { append: true });
    await emendJson([...args(broken), "--resume"]);
    for (const name of ["config.json", "summary.json"]) {
      const [a, b] = [whole, broken].map((dir) => JSON.parse(Deno.readTextFileSync(join(dir, name))));
      assert.equal(untimed(b), untimed(a), name);
    }
    const [a, b] = await Promise.all([whole, broken].map((dir) => linesOf(join(dir, "cases.jsonl"))));
    assert.equal(untimed(b), untimed(a));
  }),
);

Deno.test(
  "two shards together are one run",
  inFolder(async (folder) => {
    const parts = join(folder, "parts");
    for (const shard of ["1/2", "2/2"]) await emendJson([...FOUR, "--shard", shard, "--out", parts]);
    const shards = ["1", "2"].map((i) => join(parts, `shard-${i}-of-2`));
    assert.equal((await linesOf(join(shards[0], "cases.jsonl"))).length, 2);
    const merged = await emendJson(["report", ...shards]);
    const { written } = await single();
    assert.equal(untimed(merged.runs[0].summary), untimed(await summaryOf(written)));
    const run = await emend(["report", shards[0], written]);
    assert.notEqual(run.code, 0);
  }),
);

Deno.test(
  "sequential edits stay, are read again at the end, and survive a kill",
  inFolder(async (folder) => {
    const whole = join(folder, "whole"), broken = join(folder, "broken");
    const args = (out: string) => [...BASE, "--limit", "3", "--sequential", "--out", out];
    const summary: Summary = await emendJson(args(whole));
    assert.equal(summary.forgetting!.length, 3);
    assert.equal(summary.restored, undefined);
    const lines = await linesOf<CaseLine>(join(whole, "cases.jsonl"));
    const retained = await linesOf<RetainedLine>(join(whole, "retained.jsonl"));
    // Nothing comes after the last edit: what it left is what it made.
    assert.deepEqual(retained[2].readings, lines[2].after);
    assert.notDeepEqual(retained[0].readings, lines[0].after);
    // Before is always the unedited model.
    const singles = await linesOf<CaseLine>(join((await single()).written, "cases.jsonl"));
    assert.deepEqual(lines.map((l) => l.before), singles.slice(0, 3).map((l) => l.before));
    assert.deepEqual(lines[0].after, singles[0].after);
    assert.notDeepEqual(lines[1].after, singles[1].after);

    await killed(args(broken), join(broken, "cases.jsonl"), 2);
    await killed([...args(broken), "--resume"], join(broken, "retained.jsonl"), 1);
    await emendJson([...args(broken), "--resume"]);
    assert.equal(untimed(await summaryOf(broken)), untimed(await summaryOf(whole)));
  }),
);

Deno.test(
  "a batch is edited together and undone; sequential batches stay",
  inFolder(async (folder) => {
    // The numbers are those of log-probabilities; what the model says at length is looked at above.
    const pairs = [...FOUR, "--batch", "2", "--metrics", "none"];
    const batch: Summary = await emendJson([...pairs, "--out", join(folder, "b")]);
    assert.equal(batch.config.protocol, "batch");
    assert.equal(batch.restored, true);
    const sequential: Summary = await emendJson([...pairs, "--sequential", "--out", join(folder, "s")]);
    assert.equal(sequential.config.protocol, "sequential-batch");
    const [b, s] = await Promise.all(
      ["b", "s"].map((d) => linesOf<CaseLine>(join(folder, d, "cases.jsonl"))),
    );
    assert.deepEqual(b.slice(0, 2).map((l) => l.after), s.slice(0, 2).map((l) => l.after));
    assert.notDeepEqual(b[2].after, s[2].after);
    assert.ok(await exists(join(folder, "s", "edits")));
  }),
);

Deno.test("eval refuses what it cannot do, before any work", async () => {
  await refused([...BASE, "--shard", "3/2"], /--shard wants i\/n with i from 1 to n/);
  await refused([...BASE, "--shard", "1/2", "--sequential"], /cannot be split/);
  await refused([...BASE, "--metrics", "fluffiness"], /no metrics "fluffiness"/);
  await refused(["eval", "--dataset", "atlas"], /--model is missing/);
  await refused(["eval", "--model", "atlas", "--dataset", "nowhere.json"], /nowhere\.json/);
  await refused([...BASE, "--out", "docs"], /docs holds something other than a run/);
  await refused([...BASE, "--batch", "0"], /--batch wants/);
});

Deno.test(
  "eval stops before the first edit when what every edit needs is not there, and leaves no folder",
  inFolder(async (folder) => {
    const out = join(folder, "run");
    const two = ["eval", "--model", "atlas", "--dataset", "atlas", "--limit", "2", "--out", out];
    await refused([...two, "--method", "mend", "--editor", join(folder, "none")], /No such editor: .*none/);
    await refused([...two, "--method", "ike"], /IKE needs a corpus/);
    const lost = `corpus=${join(folder, "none.json")}`;
    await refused([...two, "--method", "ike", "--set", lost], /Cannot read the corpus .*none\.json/);
    assert.equal(await exists(out), false);
  }),
);

Deno.test("eval --lint checks the records and touches no model", async () => {
  const { findings, dataset } = await emendJson(["eval", "--dataset", "atlas", "--limit", "5", "--lint"]);
  assert.ok(Array.isArray(findings));
  assert.equal(dataset.layout.startsWith("CounterFact"), true);
});
