import assert from "node:assert/strict";
import { successMetric, summarise } from "../../evaluation/summarise.ts";
import { configOf, lineOf, retainedOf } from "./report/_runs.ts";

Deno.test("summarise() means what a hand calculates", () => {
  const lines = [
    lineOf(1, { ES: 1, PS: 0.5, NS: 1 }),
    lineOf(2, { ES: 0, PS: 1, NS: 0.5 }),
    lineOf(3, { ES: 1 }),
  ];
  const { metrics, score, time_s, memory, restored, cases, forgetting, drift } = summarise(
    configOf({ indices: [1, 2, 3] }),
    lines,
    undefined,
    { total_s: 60 },
  );
  assert.equal(cases, 3);
  // ES 1, 0, 1: mean 2/3, variance (1/9 + 4/9 + 1/9)/2 = 1/3.
  assert.equal(metrics.after.ES.mean, 2 / 3);
  assert.ok(Math.abs(metrics.after.ES.sd - Math.sqrt(1 / 3)) < 1e-15);
  assert.ok(Math.abs(metrics.after.ES.ci95 - 1.96 / 3) < 1e-15);
  assert.deepEqual({ mean: metrics.after.PS.mean, n: metrics.after.PS.n }, { mean: 0.75, n: 2 });
  // Harmonic mean of 2/3, 3/4, 3/4: 3 / (3/2 + 4/3 + 4/3) = 18/25.
  assert.ok(Math.abs(score.after! - 0.72) < 1e-15);
  assert.equal(score.before, undefined, "PS and NS were not read before");
  assert.deepEqual([time_s.edit.mean, time_s.evaluate.mean, time_s.total], [2, 1, 60]);
  assert.ok(Math.abs(time_s.outside_editing - 1 / 3) < 1e-15);
  assert.deepEqual(memory, { gpu_peak_bytes: 2 ** 30, host_peak_bytes: 2 ** 29 });
  assert.deepEqual([restored, forgetting, drift], [true, undefined, undefined]);
});

Deno.test("summarise() gives the same bytes for lines in any order, from memory or from a file", () => {
  const config = configOf({ indices: [3, 1, 2, 0] });
  const values = [0.1, 0.2, 0.3, 0.7];
  const lines = values.map((x, i) => lineOf(i, { "tf.token.rewrite": x / 3, ES: x, NaN: NaN }));
  const bytes = (list: typeof lines) => JSON.stringify(summarise(config, list, undefined, { total_s: 1 }));
  const expected = bytes(lines);
  assert.equal(bytes(lines.toReversed()), expected);
  assert.equal(bytes(JSON.parse(JSON.stringify(lines))), expected);
  const { metrics } = JSON.parse(expected);
  assert.deepEqual(
    Object.keys(metrics.after),
    ["ES", "tf.token.rewrite"],
    "sorted, without what is not finite",
  );
});

Deno.test("summarise() sets forgetting out in the order of the edits", () => {
  const config = configOf({ protocol: "sequential", indices: [7, 5] });
  const lines = [5, 7].map((index) => lineOf(index, { ES: 1 }, { restored: undefined }));
  const { forgetting, metrics, restored, time_s } = summarise(
    config,
    lines,
    [retainedOf(5, { ES: 0 }), retainedOf(7, { ES: 1 })],
    { total_s: 1 },
  );
  assert.deepEqual(forgetting, [{ index: 7, immediate: 1, retained: 1 }, {
    index: 5,
    immediate: 1,
    retained: 0,
  }]);
  assert.deepEqual([metrics.retained!.ES.mean, restored, time_s.evaluate.mean], [0.5, undefined, 1.5]);
});

Deno.test("summarise() counts the drift of a batch once", () => {
  const drift = (kl: number) => ({ drift: { before: { "drift.kl": 0 }, after: { "drift.kl": kl } } });
  const lines = [[0, 1], [1, 1], [2, 4]].map(([index, kl]) => lineOf(index, { ES: 1 }, drift(kl)));
  const config = configOf({ protocol: "batch", batch: 2, indices: [0, 1, 2] });
  const { "drift.kl": kl } = summarise(config, lines, undefined, { total_s: 1 }).drift!.after;
  assert.deepEqual([kl.mean, kl.n], [2.5, 2]);
});

Deno.test("summarise() counts edits that could not be made, and says why the first one was not", () => {
  const { edit } = lineOf(0);
  const lost = (index: number, failed: string) => lineOf(index, { ES: 0 }, { edit: { ...edit, failed } });
  const config = configOf({ indices: [0, 1, 2] });
  const of = (lines: Parameters<typeof summarise>[1]) => (
    summarise(config, lines, undefined, { total_s: 1 }).not_made
  );
  assert.equal(of([lineOf(0), lineOf(1)]), undefined);
  assert.deepEqual(of([lost(2, "no subject"), lost(1, "too long"), lineOf(0)]), {
    cases: 2,
    first: "too long",
  });
});

Deno.test("summarise() of nothing is a summary, and a foreign or repeated case none", () => {
  const empty = summarise(configOf(), [], undefined, { total_s: 0 });
  assert.deepEqual([empty.cases, empty.metrics, empty.time_s.outside_editing], [
    0,
    { before: {}, after: {} },
    0,
  ]);
  const run = (...indices: number[]) => () =>
    summarise(configOf(), indices.map((i) => lineOf(i)), undefined, { total_s: 0 });
  assert.throws(run(9), /^InputError: Case case-9 at position 9 is none of the run's$/);
  assert.throws(run(1, 1), /^InputError: Case case-1 at position 1 is there twice$/);
});

Deno.test("successMetric() is one that all cases have", () => {
  const tf = { "tf.seq.rewrite": 1 };
  assert.equal(successMetric([lineOf(1, { ES: 1, ...tf }), lineOf(2, { ES: 0, ...tf })]), "ES");
  assert.equal(successMetric([lineOf(1, { ES: 1, ...tf }), lineOf(2, tf)]), "tf.seq.rewrite");
  assert.equal(successMetric([lineOf(1, { ES: 1 }), lineOf(2, tf)]), undefined);
  assert.equal(successMetric([]), undefined);
});
