import assert from "node:assert/strict";
import { bestOf, commonPrefix, decimals, formatCell } from "../../../evaluation/report/about.ts";
import { byFamily, familyOf } from "../../../evaluation/report/families.ts";
import { groupRuns } from "../../../evaluation/report/groups.ts";
import type { Run } from "../../../evaluation/report/load.ts";
import { markdownReport } from "../../../evaluation/report/markdown.ts";
import { textReport } from "../../../evaluation/report/text.ts";
import type { CaseLine, Metrics, RetainedLine, RunConfig } from "../../../evaluation/records.ts";
import { METRICS } from "../../../evaluation/metrics/index.ts";
import { summarise } from "../../../evaluation/summarise.ts";
import { configOf, lineOf, retainedOf } from "./_runs.ts";

function runOf(config: RunConfig, lines: CaseLine[], retained?: RetainedLine[]): Run {
  const summary = summarise(config, lines, retained, { total_s: 10 });
  return {
    paths: ["runs/x"],
    config,
    lines,
    retained,
    summary,
    missing: config.indices.length - lines.length,
  };
}

const indices = [0, 1];
const both = (...metrics: Metrics[]) => metrics.map((m, i) => lineOf(i, m));

Deno.test("textReport() puts the unedited model first, marks the best and explains each metric", () => {
  const rome = runOf(configOf({ indices }), both({ ES: 1, NS: 0.5 }, { ES: 1, NS: 0.7 }));
  const memit = runOf(configOf({ indices, method: "memit" }), both({ ES: 1, NS: 1 }, { ES: 0, NS: 0.8 }));
  const text = textReport(groupRuns([rome, memit]), 80);
  // NS 0.5 and 0.7: mean 0.6, sd 0.1·√2, interval 1.96·0.1·√2/√2 = 0.196.
  assert.equal(
    text.split("\n").slice(0, 10).join("\n"),
    [
      "single edits · facts.json · tiny",
      "════════════════════════════════",
      "2 cases, mean ± half the 95 % interval",
      "",
      "Ranking (%)",
      "                   ES             NS",
      "────────  ─────────────  ─────────────",
      "unedited    0.0 ± 0.0              –",
      "rome      100.0 ± 0.0 *  60.0 ± 19.6",
      "memit     50.0 ± 98.0    90.0 ± 19.6 *",
    ].join("\n"),
  );
  assert.match(text, /^\* {2}best mean/m);
  assert.match(text, /^ES {2}efficacy success/m);
});

Deno.test("textReport() says of a value how many cases it is over, where not all", () => {
  const run = runOf(configOf({ indices }), both({ ES: 1, PS: 0.5 }, { ES: 1 }));
  assert.match(textReport(groupRuns([run]), 80), /^rome +100\.0 ± 0\.0 +50\.0 \(n 1\)$/m);
});

Deno.test("groupRuns() never puts protocols, data sets or models together, nor compares over other cases", () => {
  const line = both({ ES: 1 }, { ES: 0 });
  const groups = groupRuns([
    runOf(configOf({ indices }), line),
    runOf(configOf({ indices, protocol: "batch", batch: 2 }), line),
    runOf(configOf({ indices, dataset: { ...configOf().dataset, hash: "e" } }), line),
    runOf(configOf({ indices, model: { ...configOf().model, hash: "b" } }), line),
    runOf(configOf({ indices: [0], method: "memit" }), line.slice(0, 1)),
  ]);
  assert.deepEqual(groups.map(({ runs }) => runs.length), [2, 1, 1, 1]);
  assert.deepEqual(groups[0].blocks.map(({ rows }) => rows.map(({ label }) => label)), [
    ["unedited", "rome"],
    ["unedited", "memit"],
  ]);
});

Deno.test("groupRuns() names runs by what tells them apart", () => {
  const run = (over: Partial<RunConfig>) => runOf(configOf({ indices, ...over }), both({ ES: 1 }, { ES: 1 }));
  const labels = (...list: Partial<RunConfig>[]) =>
    groupRuns(list.map(run))[0].runs.map(({ label }) => label);
  assert.deepEqual(labels({}, { hparams: { layers: [5], v_lr: 0.1 } }), [
    "rome (v_lr 0.5)",
    "rome (v_lr 0.1)",
  ]);
  assert.deepEqual(labels({}, { method: "ft" }), ["rome", "ft"]);
  assert.deepEqual(labels({ seed: 1 }, { seed: 2 }), ["rome (seed 1)", "rome (seed 2)"]);
  assert.deepEqual(labels({}, {}), ["rome #1", "rome #2"]);
  const [group] = groupRuns([run({ protocol: "batch", batch: 2 }), run({ protocol: "batch", batch: 4 })]);
  assert.deepEqual(group.runs.map(({ series }) => series), ["rome", "rome"], "one curve");
});

Deno.test("groupRuns() notes what weakens the numbers", () => {
  const config = configOf({ indices: [0, 1, 2] });
  const made = lineOf(0).edit;
  const failed = lineOf(0, { ES: 0 }, { edit: { ...made, failed: "NaN" }, restored: false });
  const changed = lineOf(0, { ES: 1 }, { metrics: { before: { ES: 0.5 }, after: { ES: 1 } } });
  const [{ notes }] = groupRuns([
    runOf(config, [failed, lineOf(1)]),
    runOf(configOf({ indices }), [lineOf(0), lineOf(1)]),
    runOf(configOf({ indices, seed: 3 }), [changed, lineOf(1)]),
  ]);
  assert.deepEqual(
    notes,
    [
      "rome (3 cases) [2 of 3 cases] is not whole: 1 of its 3 cases are missing.",
      "rome (3 cases) [2 of 3 cases]: 1 of 2 edits could not be made; they count as unedited.",
      "rome (3 cases) [2 of 3 cases]: the weights did not come back bit for bit after an edit.",
      "The runs differ in seed: 0; 3.",
      "The unedited model's ES differs between runs on the same cases: 0.00, 0.250.",
    ].map((note) => note.replaceAll("(3 cases)", notes[0].match(/\(.*?\)/)![0])),
  );
});

Deno.test("bestOf() compares with the unedited model where closeness counts, and immediate with immediate", () => {
  const config = configOf({ indices, protocol: "sequential" });
  const after = (fluency: number) =>
    both({ ES: 1, fluency }, { ES: 1, fluency }).map((line) => ({
      ...line,
      metrics: { ...line.metrics, before: { ES: 0, fluency: 6 } },
    }));
  const late = (ES: number) => indices.map((i) => retainedOf(i, { ES }));
  const [{ blocks: [{ rows }] }] = groupRuns([
    runOf(config, after(6.5), late(0.5)),
    runOf({ ...config, method: "memit" }, after(5.9), late(0.9)),
  ]);
  const best = (metric: string) => [...bestOf(metric, rows)].map(({ label }) => label);
  assert.deepEqual(best("fluency"), ["memit, right after"]);
  assert.deepEqual(best("ES"), ["memit, in the end"], "all the same right after: nothing to mark");
});

Deno.test("every metric of METRICS has a family, and what only repeats another is left out", () => {
  for (const { name } of METRICS) {
    const family = familyOf(name.replace(/<.*>/, "rewrite"));
    assert.notEqual(family.key, "other", name);
  }
  const found = byFamily(["tf.seq.neighbour", "rank.rewrite", "NS", "ES", "tf.seq.rewrite", "rank.alias"]);
  assert.deepEqual(found.map(({ metrics }) => metrics), [
    ["ES", "NS"],
    ["tf.seq.rewrite", "tf.seq.neighbour"],
    [
      "rank.alias",
    ],
  ]);
});

Deno.test("values keep the digits that their interval leaves", () => {
  assert.equal(formatCell("ES", { mean: 0.98, ci95: 0.0123, sd: 1, n: 9 }), "98.0 ± 1.2");
  assert.equal(
    formatCell("drift.perplexity", { mean: 21.5512, ci95: 0.0358, sd: 1, n: 9 }),
    "21.551 ± 0.036",
  );
  assert.equal(formatCell("drift.kl", { mean: 21.3, ci95: 6e-15, sd: 0, n: 9 }), "21.3 ± 0");
  assert.equal(formatCell("drift.kl", { mean: 0.3, n: 1 }), "0.300");
  assert.equal(formatCell("Score", { mean: 0.5, n: 9 }), "50.0");
  assert.equal(formatCell("ES", undefined), "–");
  assert.equal(decimals(123456789, 1), "1.2e+8");
  assert.equal(commonPrefix(["tf.seq.a", "tf.seq.b.c"]), "tf.seq.");
  assert.equal(commonPrefix(["ES", "PS"]), "");
});

Deno.test("markdownReport() keeps cells in their table whatever they are called", () => {
  const run = runOf(configOf({ indices, method: "a|b *c* <script>\n# d" }), both({ ES: 1 }, { ES: 1 }));
  const text = markdownReport(groupRuns([run]));
  assert.match(text, /^\| a\\\|b \\\*c\\\* \\<script\\> \\# d \| 100\.0 ± 0\.0 \|$/m);
  assert.match(text, /^- Model: tiny \(gpt2\), SHA-256 a{64}$/m);
  assert.match(text, /^- Hyper-parameters: layers = \\\[5\\\], v\\_lr = 0\.5$/m);
  assert.equal(markdownReport(groupRuns([run])), text);
});
