/**
 * The real files beside the repository. The numbers were counted apart from the code under test, with Python's
 * json module and the rules of ../shared/data/SOURCES.md.
 */
import assert from "node:assert/strict";
import { readDataset } from "../../../evaluation/datasets/read.ts";
import { metricInfo } from "../../../evaluation/metrics/index.ts";
import { kinds, testReal } from "./_files.ts";

/** What was counted in a file. */
interface Counted {
  layout: string;
  total: number;
  kinds: Record<string, number>;
  duplicates?: number;
  conflicts?: number;
  /** Records whose target is among the right answers. */
  right?: number;
  /** Numbers of the records that cannot be used. */
  unusable?: number[];
}

const easyEdit = (total: number, duplicates: number, conflicts: number): Counted => ({
  layout: "CounterFact (EasyEdit)",
  total,
  kinds: { rewrite: total, paraphrase: total, neighbour: total },
  duplicates,
  conflicts,
});

const FILES: Record<string, Counted> = {
  "counterfact/counterfact-500.json": {
    layout: "CounterFact (ROME)",
    total: 500,
    kinds: { rewrite: 500, paraphrase: 1000, generation: 5000, neighbour: 5000, attribute: 5000 },
  },
  "counterfact/counterfact-easyedit-edit-2000.json": easyEdit(2000, 0, 2),
  "counterfact/counterfact-easyedit-train.json": easyEdit(9769, 3, 70),
  "counterfact/counterfact-easyedit-val.json": easyEdit(1868, 0, 6),
  "zsre/zsre-mend-train-1000.json": {
    layout: "zsRE (MEND)",
    total: 1000,
    kinds: { rewrite: 998, paraphrase: 998, unrelated: 998 },
    right: 21,
    unusable: [535, 724],
  },
  "knowedit/zsre-test-652.json": {
    layout: "KnowEdit",
    total: 652,
    kinds: { rewrite: 652, paraphrase: 652, reasoning: 383, alias: 135, logic: 134, relation: 1304 },
    duplicates: 2,
    conflicts: 3,
    right: 25,
  },
  "knowedit/wiki-counterfact-714.json": {
    layout: "KnowEdit",
    total: 714,
    kinds: { rewrite: 714, reasoning: 271, alias: 704, logic: 144, relation: 638, forget: 397 },
    duplicates: 11,
    right: 3,
  },
};

for (const [file, counted] of Object.entries(FILES)) {
  testReal(file, `${file} is read as counted`, async (path) => {
    const dataset = await readDataset(path);
    assert.equal(dataset.layout, counted.layout);
    assert.equal(dataset.total, counted.total);
    assert.deepEqual(kinds(dataset), counted.kinds);
    assert.equal(dataset.duplicates.length, counted.duplicates ?? 0);
    assert.equal(dataset.conflicts.length, counted.conflicts ?? 0);
    assert.deepEqual(dataset.unusable.map(({ index }) => index + 1), counted.unusable ?? []);
    const right = dataset.notes.join("\n").match(/^(\d+) records? \(.*the target is already a right answer/m);
    assert.equal(Number(right?.[1] ?? 0), counted.right ?? 0);
    const named = [...dataset.gives, ...dataset.lacks.map(({ metric }) => metric.replace(/\*$/, "x"))];
    const unknown = named.filter((metric) => !metricInfo(metric) && !/^(zsre|mend|mquake)\.x$/.test(metric));
    assert.deepEqual(unknown, [], "metrics that nobody measures");
  });
}

testReal("known_1000/known-605.json", "known facts are recognised, counted and refused", async (path) => {
  await assert.rejects(
    readDataset(path),
    /known-605\.json has the layout known facts .*, but none of its 605 records can be used: the record has no new target/,
  );
});

testReal(
  "lre/factual__company_hq.json",
  "LRE relations are recognised, counted and refused",
  async (path) => {
    await assert.rejects(
      readDataset(path),
      /LRE relation, but none of its 674 records can be used: .* no new target/,
    );
  },
);

testReal(
  "zsre/zsre-mend-train-1000.json",
  "zsRE's records with an empty alt can be corrected",
  async (path) => {
    const { cases, unusable } = await readDataset(path, { target: "answer" });
    assert.deepEqual([cases.length, unusable.length], [1000, 0]);
  },
);
