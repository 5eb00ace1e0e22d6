/** Metrics of what the model says by hand: generation, RippleEdits, MQuAKE, fluency, consistency. */
import assert from "node:assert/strict";
import type { Probe, ProbeTest } from "../../../evaluation/cases.ts";
import { tfIdfCosine } from "../../../evaluation/metrics/consistency.ts";
import { normaliseAnswer } from "../../../evaluation/metrics/generation.ts";
import { naturalStop, scoreCase } from "../../../evaluation/metrics/index.ts";
import { cleanText, nGramEntropy } from "../../../evaluation/metrics/text.ts";
import type { Metrics } from "../../../evaluation/records.ts";
import { allNear, asking, caseOf, near } from "./_fixtures.ts";

function scores(rows: Parameters<typeof caseOf>[0]): Metrics {
  const { probes, before, after } = caseOf(rows);
  return scoreCase({ requests: [], probes }, before, after);
}

Deno.test("naturalStop() cuts before a full stop, a line break or an end-of-text mark, and is idempotent", () => {
  for (
    const [text, cut] of [
      [" Paris. It is", " Paris"],
      [" Paris\nIt is.", " Paris"],
      [" Paris<|endoftext|>x", " Paris"],
      [" Paris</s>", " Paris"],
      ["", ""],
      [".", ""],
      // As in the study, a full stop is a full stop.
      [" St. Louis", " St"],
      [" Paris, the city of 3 hills!  ", " Paris, the city of 3 hills!  "],
    ]
  ) {
    assert.equal(naturalStop(text), cut);
    assert.equal(naturalStop(cut), cut);
  }
});

Deno.test("normaliseAnswer() drops case, punctuation, articles and spaces, but never all", () => {
  assert.equal(normaliseAnswer(" The  U.S. "), "us");
  assert.equal(normaliseAnswer("an Anna the Theatre"), "anna theatre");
  assert.equal(normaliseAnswer("à a é"), "à é");
  assert.equal(normaliseAnswer("?"), "?");
  assert.equal(normaliseAnswer("The"), "the");
});

Deno.test("gen.prefix, gen.exact and gen.contains tell texts apart", () => {
  const table: [text: string, answers: string[][], prefix: number, exact: number, contains: number][] = [
    [" Paris", [["Paris"]], 1, 1, 1],
    [" the Paris. And", [["Paris"]], 1, 1, 1],
    [" Paris, in France", [["Paris"]], 1, 0, 1],
    [" Parisian cafés", [["Paris"]], 0, 0, 1],
    [" not Paris", [["Paris"]], 0, 0, 1],
    // Prefix and equality are of the first answer; only the substring takes aliases.
    [" City of Light", [["Paris", "City of Light"]], 0, 0, 1],
    [" Rome and Paris", [["Rome"], ["Paris", "Lutetia"]], 1, 0, 1],
    [" Rome", [["Rome"], ["Paris", "Lutetia"]], 1, 1, 0],
    [" 東京タワー", [["東京"]], 1, 0, 1],
    ["", [["Paris"]], 0, 0, 0],
    [". Paris", [["Paris"]], 0, 0, 0],
  ];
  for (const [text, answers, prefix, exact, contains] of table) {
    const got = scores([{ probe: asking("rewrite", { answers }), after: { text } }]);
    const expected = {
      "gen.prefix.rewrite": prefix,
      "gen.exact.rewrite": exact,
      "gen.contains.rewrite": contains,
    };
    assert.deepEqual(got, expected, text);
  }
});

const tested = (kind: Probe["kind"], answers: string[][], test: ProbeTest, group?: string) =>
  asking(kind, { answers, test, group });

Deno.test("RippleEdits: tests are executed by what the unedited model knows, and count once the edit is recalled", () => {
  const any: ProbeTest = { id: "1", combine: "any", conditions: [{ prompt: "c", answers: [["euro"]] }] };
  const all: ProbeTest = { id: "2", combine: "all", conditions: [] };
  const rows = (fact: string) => [
    { probe: asking("rewrite", { answers: [["Paris"]] }), before: { text: " Rome" }, after: { text: fact } },
    {
      probe: tested("logic", [["France"]], any, "LG"),
      before: { text: " Italy", conditions: [" lira"] },
      after: { text: " France", conditions: [" euro"] },
    },
    {
      probe: tested("logic", [["France"]], all, "LG"),
      before: { text: " Italy" },
      after: { text: " France" },
    },
    { probe: tested("logic", [["Seine"]], all, "LG"), before: { text: " Tiber" }, after: { text: " Po" } },
    { probe: tested("relation", [["x", "9"]], all, "RS"), before: { text: " x" }, after: { text: " x" } },
  ];
  const ripple = (metrics: Metrics) =>
    Object.fromEntries(Object.entries(metrics).filter(([k]) => k.startsWith("ripple")));
  assert.deepEqual(ripple(scores(rows(" Paris"))), {
    "ripple.edited": 1,
    // The condition fails on the unedited model, whatever the edited one says.
    "ripple.executed.LG": 0.5,
    "ripple.LG": 0,
    "ripple.executed.RS": 1,
    // An alias of one letter is ignored.
    "ripple.RS": 0,
  });
  const failed = { "ripple.edited": 0, "ripple.executed.LG": 0.5, "ripple.executed.RS": 1 };
  assert.deepEqual(ripple(scores(rows(" Rome"))), failed);
  // The unedited model has no failed edit.
  const { probes, before } = caseOf(rows(" Rome"));
  const pre = ripple(scoreCase({ requests: [], probes }, before, before));
  assert.deepEqual(pre, { ...failed, "ripple.LG": 0, "ripple.RS": 0 });
});

Deno.test("MQuAKE: any wording of the question, every link of the chain", () => {
  const hop: ProbeTest = { id: "hop", combine: "any", conditions: [] };
  const rows = (links: string[]) => [
    { probe: asking("rewrite", { answers: [["cricket"]] }), after: { text: " Cricket, mostly" } },
    { probe: asking("rewrite", { answers: [["Spain"]] }), after: { text: " France" } },
    ...[" Rome", " London", " the City of London"].map((text) => ({
      probe: tested("multi-hop", [["London UK", "City of London"]], hop),
      after: { text },
    })),
    ...links.map((text) => ({ probe: asking("single-hop", { answers: [["yes"]] }), after: { text } })),
  ];
  allNear(scores(rows(["Yes.", " yes"])), {
    "mquake.multihop": 1,
    "mquake.editwise": 0.5,
    "mquake.instance": 1,
  });
  allNear(scores(rows(["Yes.", " no"])), { "mquake.instance": 0 });
  assert.ok(!("mquake.instance" in scores(rows([]))));
});

Deno.test("fluency is a third of the bigrams' entropy and two thirds of the trigrams', in bits", () => {
  // Bigrams ab ba ab ba: 1 bit. Trigrams aba bab aba: 2/3, 1/3.
  const h3 = -(2 / 3) * Math.log2(2 / 3) - (1 / 3) * Math.log2(1 / 3);
  near(nGramEntropy("a b a b a"), 1 / 3 + 2 / 3 * h3);
  assert.equal(nGramEntropy("a a a a a a"), 0);
  const { fluency } = scoreCase({ requests: [], probes: [] }, { probes: [] }, {
    probes: [],
    texts: ["a b a b a", "a a a a a a<|endoftext|>"],
  });
  // Ligatures and full-width letters are taken apart first.
  assert.equal(cleanText("ﬁ\n\nＡ<|endoftext|>"), "fi A");
  near(fluency, (1 / 3 + 2 / 3 * h3) / 2);
});

Deno.test("consistency is 1 for the references, 0 for other words, and less for unseen ones", () => {
  const references = ["Paris is a city", "Paris and France"];
  near(tfIdfCosine(references.join(" "), references), 1);
  assert.equal(tfIdfCosine("nothing shared", references), 0);
  assert.equal(tfIdfCosine("a", references), undefined);
  // By hand: idf of paris ln(3/3) + 1 = 1, of other words ln(3/2) + 1, of unseen ones ln(3) + 1.
  const other = Math.log(1.5) + 1, unseen = Math.log(3) + 1;
  const norm = Math.hypot(2, other, other, other, other);
  near(tfIdfCosine("Paris Paris", references), 2 / norm);
  near(tfIdfCosine("paris zebra", references), 2 / (norm * Math.hypot(1, unseen)));
  // With a table, words that it lacks are left out.
  near(tfIdfCosine("paris zebra", references, new Map([["paris", 3], ["city", 4]])), 6 / Math.hypot(6, 4));
  const texts = { probes: [], texts: ["Paris"] };
  const of = (references?: string[]) => scoreCase({ requests: [], probes: [], references }, texts, texts);
  near(of(references).consistency, 2 / norm);
  assert.ok(!("consistency" in of()) && !("consistency" in of([])));
});
