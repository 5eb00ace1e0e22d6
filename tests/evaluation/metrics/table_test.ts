/** The table of metrics: every metric that is given is in it, and the document says what it says. */
import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import type { EditCase, Probe, ProbeKind, ProbeTest } from "../../../evaluation/cases.ts";
import { metricInfo, METRICS, naturalStop, scoreCase } from "../../../evaluation/metrics/index.ts";
import type { Forced, Metrics, Reading } from "../../../evaluation/records.ts";
import { withMetrics } from "../../../tools/metric_docs.ts";

const KINDS: ProbeKind[] = [
  "rewrite",
  "paraphrase",
  "generation",
  "neighbour",
  "attribute",
  "alias",
  "reasoning",
  "logic",
];
KINDS.push("relation", "forget", "distract", "unrelated", "multi-hop", "single-hop");

const forced = fc.array(fc.tuple(fc.nat(3), fc.nat(3), fc.double({ min: -20, max: 0, noNaN: true })), {
  maxLength: 4,
})
  .map((rows): Forced => ({
    text: "",
    tokens: rows.map(([id]) => id),
    argmax: rows.map(([, id]) => id),
    logProbs: rows.map(([, , p]) => p),
  }));
const words = fc.constantFrom(" Paris", " Rome. Paris", " the city of Paris", "", "Parisian 7");
const test = fc.record({
  id: fc.constantFrom("1", "2"),
  combine: fc.constantFrom("any" as const, "all" as const),
  conditions: fc.constant<ProbeTest["conditions"]>([{ prompt: "c", answers: [["Paris"]] }]),
});
const probe = fc.record({
  kind: fc.constantFrom(...KINDS),
  prompt: fc.constant("q"),
  group: fc.constantFrom("A", "B.b"),
  answers: fc.constantFrom<string[][]>([["Paris"]], [["Rome", "Paris"], ["city"]]),
  expect: fc.constantFrom("new" as const, "answer" as const, "unchanged" as const),
  test,
}, { requiredKeys: ["kind", "prompt", "answers", "expect"] });
const reading = fc.record({ answer: forced, rival: forced, text: words, conditions: fc.tuple(words) }, {
  requiredKeys: [],
});
const rows = fc.array(fc.tuple(probe, reading, reading), { maxLength: 8 });

function score(list: [Probe, Reading, Reading][], references?: string[]): Metrics {
  const one: Pick<EditCase, "requests" | "probes" | "references"> = {
    requests: [],
    probes: list.map(([p]) => p),
    references,
  };
  const texts = ["The city of Paris."];
  const before = { probes: list.map(([, b]) => b), texts },
    after = { probes: list.map(([, , a]) => a), texts };
  return scoreCase(one, before, after);
}

Deno.test("Every metric is finite, within bounds and in METRICS, whatever the probes and readings", () => {
  fc.assert(fc.property(rows, (list) => {
    for (const [name, value] of Object.entries(score(list, ["Paris"]))) {
      const info = metricInfo(name);
      assert.ok(info, `${name} is not in METRICS`);
      const [least, most] = info.unit === "bits×100"
        ? [0, 10]
        : /^([EPN]M|mend.drawdown)$/.test(name)
        ? [-1, 1]
        : [0, 1];
      assert.ok(value >= least && value <= most + 1e-12, `${name} is ${value}`);
    }
  }));
});

Deno.test("The order of probes does not matter", () => {
  // Queries of one test share its conditions, so that its first one may be any.
  const orders = rows.chain((list) =>
    fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length, maxLength: list.length }))
  );
  fc.assert(fc.property(orders, ([list, shuffled]) => {
    const same = (l: typeof list) =>
      l.map(([p, b, a]): (typeof list)[number] => [
        p.test ? { ...p, test: { ...p.test, combine: "any" } } : p,
        { ...b, conditions: [" Paris"] },
        a,
      ]);
    const [one, other] = [score(same(list)), score(same(shuffled))];
    assert.deepEqual(Object.keys(one).sort(), Object.keys(other).sort());
    for (const [name, value] of Object.entries(one)) assert.ok(Math.abs(value - other[name]) < 1e-12, name);
  }));
});

Deno.test("naturalStop() gives a beginning that stays what it is", () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom("a", ".", "\n", " ", "<", "/", "s", ">") }), (text) => {
      const cut = naturalStop(text);
      assert.ok(text.startsWith(cut) && naturalStop(cut) === cut && !/[.\n]/.test(cut));
    }),
  );
});

Deno.test("metricInfo() fills patterns, prefers exact names and knows what should not change", () => {
  assert.equal(metricInfo("rank.joint.multi-hop")!.title, "answer beats rival, joint probability, multi-hop");
  assert.equal(metricInfo("rank.multi-hop")!.title, "answer beats rival, multi-hop");
  assert.match(metricInfo("ripple.edited")!.title, /^edited fact/);
  assert.match(metricInfo("ripple.executed.Logical_Generalization")!.title, /^tests executed, Logical/);
  assert.match(metricInfo("ripple.Logical_Generalization")!.title, /^tests passed, Logical/);
  assert.equal(metricInfo("tf.token.neighbour")!.better, "closer to before");
  assert.equal(metricInfo("tf.token.rewrite")!.better, "higher");
  assert.equal(metricInfo("rank.neighbour")!.better, "higher");
  for (const name of ["rank", "rank.", "tf.token", "unknown", "ES.rewrite", "rank.a.b"]) {
    assert.equal(metricInfo(name), undefined, name);
  }
  const names = METRICS.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
});

Deno.test("docs/evaluation.md says of every metric what METRICS says", async () => {
  const document = await Deno.readTextFile(new URL("../../../docs/evaluation.md", import.meta.url));
  assert.ok(document === withMetrics(document), "Run deno run -A tools/metric_docs.ts");
});
