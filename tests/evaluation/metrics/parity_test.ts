/**
 * Our metrics on stored readings against the authors' own code on the same model: MEMIT (CounterFact, zsRE),
 * EasyEdit, RippleEdits, NLTK. Fixtures: tools/fixtures/metrics.py.
 */
import assert from "node:assert/strict";
import type { Probe } from "../../../evaluation/cases.ts";
import { rippleMatch } from "../../../evaluation/metrics/chains.ts";
import { tfIdfCosine } from "../../../evaluation/metrics/consistency.ts";
import { normaliseAnswer } from "../../../evaluation/metrics/generation.ts";
import { aggregate, harmonicScore, scoreCase } from "../../../evaluation/metrics/index.ts";
import { sentences } from "../../../evaluation/metrics/punkt.ts";
import { cleanText, nGramEntropy, textMetrics } from "../../../evaluation/metrics/text.ts";
import { wordTokens } from "../../../evaluation/metrics/words.ts";
import type { Metrics } from "../../../evaluation/records.ts";
import { allNear, fixture, members, near, type Scored } from "./_fixtures.ts";

/** Scores of both states. */
function both(one: Omit<Scored<unknown>, "authors">): { pre: Metrics; post: Metrics } {
  const asked = { ...one, requests: [] };
  return { pre: scoreCase(asked, one.before, one.before), post: scoreCase(asked, one.before, one.after) };
}

const SIDES = ["pre", "post"] as const;

Deno.test("CounterFact metrics equal MEMIT's on every case, before and after", () => {
  const file = fixture<Record<string, unknown> & { idf: Record<string, number> }>("counterfact");
  const idf = new Map(Object.entries(file.idf));
  const cases = members<Scored<Record<string, number>>>(file, "case");
  assert.equal(cases.length, 8);
  for (const one of cases) {
    const scores = both(one);
    for (const side of SIDES) {
      const theirs = (name: string) => one.authors[`${side}_${name}`];
      const expected = {
        ES: theirs("rewrite_success"),
        EM: theirs("rewrite_diff"),
        PS: theirs("paraphrase_success"),
        PM: theirs("paraphrase_diff"),
        NS: theirs("neighborhood_success"),
        NM: theirs("neighborhood_diff"),
        "tf.seq.rewrite": theirs("rewrite_acc"),
        "tf.seq.paraphrase": theirs("paraphrase_acc"),
        "tf.seq.neighbour": theirs("neighborhood_acc"),
        fluency: theirs("ngram_entropy"),
      };
      allNear(scores[side], expected, `${one.id} ${side}`);
      const { texts } = side === "pre" ? one.before : one.after;
      const cosine = tfIdfCosine(texts!.map(cleanText).join(" "), one.references!, idf);
      near(cosine, theirs("reference_score"), `${one.id} ${side} consistency`);
    }
  }
});

Deno.test("Means, standard deviations and Score equal MEMIT's summary, whose sd divides by n", () => {
  const file = fixture<Record<string, unknown> & { summary: Record<string, [number, number]> }>(
    "counterfact",
  );
  const cases = members<Scored<unknown>>(file, "case").map(both);
  for (const side of SIDES) {
    const statistics = aggregate(cases.map((scores) => scores[side]));
    const names = { ES: "rewrite_success", PS: "paraphrase_success", NM: "neighborhood_diff" };
    for (const [ours, theirs] of Object.entries(names)) {
      const { mean, sd, n } = statistics[ours];
      // They round to two places of a percentage.
      near(100 * mean, file.summary[`${side}_${theirs}`][0], ours, 0.005 + 1e-9);
      near(100 * sd * Math.sqrt((n - 1) / n), file.summary[`${side}_${theirs}`][1], ours, 0.005 + 1e-9);
    }
    const { ES, PS, NS } = statistics;
    near(100 * harmonicScore(ES.mean, PS.mean, NS.mean), file.summary[`${side}_score`][0], "Score", 0.01);
  }
});

Deno.test("zsRE metrics equal MEMIT's", () => {
  const cases = fixture<Scored<Record<"pre" | "post", Record<string, number>>>[]>("zsre");
  const values = new Set<number>();
  for (const one of cases) {
    const scores = both(one);
    for (const side of SIDES) {
      const theirs = one.authors[side];
      values.add(theirs.rewrite_prompts_correct).add(theirs.neighborhood_prompts_correct);
      allNear(scores[side], {
        "zsre.efficacy": theirs.rewrite_prompts_correct,
        "zsre.paraphrase": theirs.paraphrase_prompts_correct,
        "zsre.specificity": theirs.neighborhood_prompts_correct,
      }, `${one.id} ${side}`);
    }
  }
  // Part of an answer right, so that tokens and sequences are told apart.
  assert.deepEqual([...values].sort(), [0, 0.5, 1]);
});

Deno.test("zsRE: with a begin-of-sequence token MEMIT's scores are all 0; ours stay those of the answer", () => {
  const cases = fixture<Scored<Record<"pre" | "post", Record<string, number>>>[]>("zsre_bos");
  for (const one of cases) {
    // Each piece of the answer is tokenised anew, and the first token of that is the same for all texts.
    assert.deepEqual([...new Set(Object.values(one.authors.post))], [0]);
    const { post } = both(one);
    assert.deepEqual(post["zsre.efficacy"], post["tf.token.rewrite"]);
  }
  assert.ok(cases.some((one) => both(one).post["zsre.efficacy"] > 0));
});

interface EasyEdit {
  rewrite_acc: number[];
  rephrase_acc: number[];
  locality: Record<string, number[]>;
  portability: Record<string, number[]>;
  fluency: { ngram_entropy: number };
}

Deno.test("EasyEdit's four and its fluency equal EasyEdit's on every record", () => {
  const cases = members<Scored<Record<"pre" | "post", EasyEdit>>>(fixture("easyedit"), "case");
  assert.equal(cases.length, 10);
  for (const one of cases) {
    const scores = both(one);
    for (const side of SIDES) {
      const { rewrite_acc, rephrase_acc, locality, portability, fluency } = one.authors[side];
      const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length;
      const expected: Record<string, number> = {
        "easyedit.reliability": rewrite_acc[0],
        "easyedit.generality": rephrase_acc[0],
        fluency: fluency.ngram_entropy,
      };
      for (const [section, groups] of Object.entries({ locality, portability })) {
        const names = Object.entries(groups);
        for (const [key, list] of names) {
          expected[`easyedit.${section}.${key.replace("_acc", "")}`] = mean(list);
        }
        if (names.length) expected[`easyedit.${section}`] = mean(names.map(([, list]) => mean(list)));
      }
      allNear(scores[side], expected, `${one.id} ${side}`);
      assert.equal("easyedit.portability" in scores[side], Object.keys(portability).length > 0);
    }
  }
});

type Printed = Record<
  "pre" | "post",
  { locality: Record<string, number>; portability: Record<string, number> }
>;

Deno.test("Run means equal KnowEdit's benchmark script; the package's summary averages otherwise", () => {
  const file = fixture<{ benchmark: Record<string, number>; summary: Printed }>("easyedit");
  const s = aggregate(members<Scored<unknown>>({ ...file }, "case").map((one) => both(one).post));
  const { benchmark, summary } = file;
  near(100 * s["easyedit.reliability"].mean, benchmark.Edit_Succ);
  near(100 * s["easyedit.portability"].mean, benchmark.Overall_portability);
  near(100 * s["easyedit.locality"].mean, benchmark.Overall_locality);
  near(100 * s.fluency.mean, benchmark.Fluency);
  // One record in ten has no portability probes: it is left out, not counted as 0.
  assert.equal(s["easyedit.portability"].n, 9);
  // The package prints each sub-type's mean over records, which a run has under the sub-type's name.
  for (const section of ["locality", "portability"] as const) {
    for (const [key, value] of Object.entries(summary.post[section])) {
      near(s[`easyedit.${section}.${key.replace("_acc", "")}`].mean, value, key);
    }
  }
  const { Forgetfulness_acc, Relation_Specificity_acc } = summary.post.locality;
  const printed = (Forgetfulness_acc + Relation_Specificity_acc) / 2;
  assert.ok(Math.abs(printed - s["easyedit.locality"].mean) > 0.01);
});

interface TextRow {
  text: string;
  sentences: string[];
  words: string[];
  entropy: number;
}

Deno.test("sentences() and wordTokens() are NLTK's, and the entropy MEMIT's", () => {
  const file = fixture<Record<string, unknown> & { means: number }>("text");
  const rows = members<TextRow>(file, "text");
  assert.ok(rows.length > 50);
  for (const { text, sentences: split, words, entropy } of rows) {
    assert.deepEqual(sentences(text), split, text);
    assert.deepEqual(wordTokens(text), words, text);
    near(nGramEntropy(text), entropy, text, 1e-12);
  }
  const means = rows.reduce((sum, { text }) => sum + nGramEntropy(text), 0) / rows.length;
  near(means, file.means, "mean", 1e-12);
  // A text without trigrams, or even words, has a value: 0 and not NaN.
  near(textMetrics(["Yes."]).fluency, 0);
  assert.equal(rows.find(({ text }) => text === "Yes.")!.entropy, 0);
});

Deno.test("normaliseAnswer() is EasyEdit's, except where nothing would be left and for typographic marks", () => {
  const { answers } = fixture<{ answers: Record<string, string> }>("text");
  assert.equal(answers.A, "");
  for (const [answer, normal] of Object.entries(answers)) {
    // An empty answer would be a prefix of everything.
    assert.equal(normaliseAnswer(answer), answer === "A" ? "a" : normal);
  }
  // They keep “ and –, so that a quoted answer is a wrong one.
  assert.equal(normaliseAnswer("“Paris” – the city"), "paris city");
});

interface RippleFixture {
  matches: { text: string; answers: string[][]; passes: boolean }[];
  runs: {
    combine: "any" | "all";
    before: Record<string, string>;
    after: Record<string, string>;
    answers: Record<string, string[][]>;
    tests: { id: string; conditions: string[]; queries: string[] }[];
    edited: boolean;
    NOT_EXECUTED: string[];
    PASSED: string[];
    FAILED: string[];
  }[];
}

Deno.test("RippleEdits' matches and executed, passed and failed tests are its TestRunner's", () => {
  const { matches, runs } = fixture<RippleFixture>("ripple");
  for (const { text, answers, passes } of matches) {
    assert.equal(rippleMatch(text, answers), passes, JSON.stringify([text, answers]));
  }
  for (const { combine, before, after, answers, tests, edited, ...counted } of runs) {
    const rewrite: Probe = { kind: "rewrite", prompt: "fact", answers: [["Paris"]], expect: "new" };
    const rows = tests.flatMap(({ id, conditions, queries }) =>
      queries.map((query) => {
        const test = { id, combine, conditions: conditions.map((c) => ({ prompt: c, answers: answers[c] })) };
        // A criterion each, so that every single test's outcome is seen.
        const probe: Probe = {
          kind: "logic",
          prompt: query,
          group: id,
          answers: answers[query],
          expect: "answer",
          test,
        };
        const spoken = (texts: Record<string, string>) => ({
          text: texts[query],
          conditions: conditions.map((c) => texts[c]),
        });
        return { probe, before: spoken(before), after: spoken(after) };
      })
    );
    const got = scoreCase(
      { requests: [], probes: [rewrite, ...rows.map(({ probe }) => probe)] },
      { probes: [{ text: before.fact }, ...rows.map((row) => row.before)] },
      { probes: [{ text: after.fact }, ...rows.map((row) => row.after)] },
    );
    assert.equal(got["ripple.edited"], +edited);
    for (const { id } of tests) {
      assert.equal(got[`ripple.executed.${id}`], +!counted.NOT_EXECUTED.includes(id));
      const passed = counted.PASSED.includes(id) ? 1 : counted.FAILED.includes(id) ? 0 : undefined;
      // Their averages leave out examples whose edit failed; so do these.
      assert.equal(got[`ripple.${id}`], edited ? passed : undefined);
    }
  }
  assert.ok(runs.some(({ edited }) => !edited) && runs.some(({ FAILED }) => FAILED.length));
});
