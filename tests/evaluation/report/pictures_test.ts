import assert from "node:assert/strict";
import { memoryBars, metricBars, timeBars } from "../../../evaluation/report/charts.ts";
import { batchCurve, driftCurve, sequenceCurve } from "../../../evaluation/report/curves.ts";
import { forgettingCurve, smoothed, windowOf } from "../../../evaluation/report/forgetting.ts";
import { byFamily } from "../../../evaluation/report/families.ts";
import { groupRuns } from "../../../evaluation/report/groups.ts";
import type { Run } from "../../../evaluation/report/load.ts";
import { drawSvg } from "../../../evaluation/report/svg.ts";
import type { RunConfig } from "../../../evaluation/records.ts";
import { summarise } from "../../../evaluation/summarise.ts";
import { configOf, lineOf, retainedOf } from "./_runs.ts";

/** A run over the first n cases whose shares are all the same. */
function runOf(n: number, share: number, over: Partial<RunConfig> = {}): Run {
  const indices = Array.from({ length: n }, (_, i) => i);
  const config = configOf({ indices, ...over });
  const metrics = {
    ES: 1,
    "easyedit.reliability": share,
    "easyedit.generality": share / 2,
    "easyedit.locality": share / 4,
  };
  const lines = indices.map((i) =>
    lineOf(i, metrics, { drift: { before: { "drift.kl": 0 }, after: { "drift.kl": i } } })
  );
  const retained = config.protocol === "sequential"
    ? indices.map((i) => retainedOf(i, { ...metrics, ES: +(i > n / 2) }))
    : undefined;
  return {
    paths: ["x"],
    config,
    lines,
    retained,
    summary: summarise(config, lines, retained, { total_s: 1 }),
    missing: 0,
  };
}

// deno-lint-ignore no-explicit-any -- a specification
const rows = (picture: { spec: any } | undefined): any[] => picture!.spec.data.values;

Deno.test("batchCurve() runs from single edits to the largest batch, one series a method", () => {
  const groups = groupRuns([
    runOf(8, 1),
    runOf(8, 0.5, { protocol: "batch", batch: 4 }),
    runOf(8, 0.8, { protocol: "batch", batch: 8 }),
    runOf(8, 0.1, { protocol: "sequential" }),
    runOf(8, 0.9, { method: "memit" }),
  ]);
  const values = rows(batchCurve(groups, "b")).map((
    { series, property, x, mean },
  ) => [series, property, x, Math.round(mean)]);
  assert.deepEqual(values.filter(([, property]) => property === "generality"), [
    ["rome", "generality", 1, 50],
    ["memit", "generality", 1, 45],
    ["rome", "generality", 4, 25],
    ["rome", "generality", 8, 40],
  ]);
  assert.equal(batchCurve(groups.slice(0, 1), "b"), undefined, "one place is no curve");
});

Deno.test("sequenceCurve() reads after the last edit, over the number of edits", () => {
  const groups = groupRuns([2, 4].map((n) => runOf(n, 1 / n, { protocol: "sequential" })));
  const values = rows(sequenceCurve(groups, "s")).filter(({ property }) => property === "reliability");
  assert.deepEqual(values.map(({ x, mean }) => [x, mean]), [[2, 50], [4, 25]]);
});

Deno.test("forgettingCurve() smooths both readings and says how", () => {
  assert.deepEqual(smoothed([1, 0, 0, 1, 1], 3), [0.5, 1 / 3, 1 / 3, 2 / 3, 1]);
  assert.deepEqual([1, 19, 20, 100, 1000, 1e5].map(windowOf), [1, 1, 3, 11, 51, 51]);
  const [group] = groupRuns([runOf(20, 1, { protocol: "sequential" })]);
  const picture = forgettingCurve(group, "f")!;
  assert.match(picture.caption, /\(ES\).* Moving mean over 3 edits, fewer at the ends\.$/);
  const late = rows(picture).filter(({ when }) => when === "in the end").map(({ y }) => Math.round(y));
  assert.deepEqual([late[0], late[10], late[19]], [0, 33, 100]);
});

Deno.test("time, memory and drift are drawn in their units", () => {
  const [group] = groupRuns([runOf(3, 1)]);
  assert.deepEqual(rows(timeBars(group, "t")).map(({ part, value }) => [part, value]), [["editing", 2], [
    "evaluating",
    1,
  ]]);
  assert.deepEqual(rows(memoryBars(group, "m")).map(({ text }) => text), ["1.00 GiB", "0.50 GiB"]);
  assert.deepEqual(rows(driftCurve(group, "d")).map(({ panel, x, y }) => [panel, x, y]), [
    ["kl (nats)", 1, 0],
    ["kl (nats)", 2, 1],
    ["kl (nats)", 3, 2],
  ]);
});

Deno.test("drawSvg() draws every picture, the same each time, and on a page without namespaces", async () => {
  const groups = groupRuns([
    runOf(4, 0.5),
    runOf(4, 0.8, { method: "memit with a name that goes on and on and on and on and on and on <&>" }),
    runOf(4, 0.9, { protocol: "sequential" }),
    runOf(2, 0.9, { protocol: "sequential" }),
    runOf(4, 0.7, { protocol: "batch", batch: 4 }),
  ]);
  const pictures = [
    batchCurve(groups, "b"),
    sequenceCurve(groups, "s"),
    ...groups.flatMap((group) => [
      forgettingCurve(group, "f"),
      driftCurve(group, "d"),
      timeBars(group, "t"),
      memoryBars(group, "m"),
      ...group.blocks.flatMap((block) =>
        byFamily(block.rows.flatMap(({ cells }) => Object.keys(cells)))
          .map(({ family, metrics }) => metricBars(block, family, metrics, family.key))
      ),
    ]),
  ].filter((picture) => picture !== undefined);
  assert.ok(pictures.length > 15, String(pictures.length));
  for (const { spec, name, caption } of pictures) {
    const svg = await drawSvg(spec, name, "paper");
    assert.match(svg, /^<svg[^>]* viewBox="0 0 [\d.]+ [\d.]+"/, name);
    assert.doesNotMatch(svg, /NaN|undefined|Infinity|#01020\d|&(?!amp;|lt;|gt;|quot;|apos;)/, name);
    assert.ok((svg.match(/<text/g) ?? []).length >= 3, name);
    assert.match(caption, /\.$/);
    assert.equal(await drawSvg(structuredClone(spec), name, "paper"), svg, name);
    const onPage = await drawSvg(spec, name, "page");
    assert.doesNotMatch(onPage, /xmlns|http/, name);
    assert.match(onPage, /var\(--ink\)/, name);
  }
});
