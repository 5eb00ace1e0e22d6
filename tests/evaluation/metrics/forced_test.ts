/** Metrics under teacher forcing by hand: ranking, matching, EasyEdit, the survey, zsRE and MEND. */
import assert from "node:assert/strict";
import { aggregate, harmonicScore, scoreCase } from "../../../evaluation/metrics/index.ts";
import type { Forced, Metrics, Reading } from "../../../evaluation/records.ts";
import { allNear, asking, caseOf, near, said } from "./_fixtures.ts";

/** Scores after the edit. */
function scores(rows: Parameters<typeof caseOf>[0], texts?: string[]): Metrics {
  const { probes, before, after } = caseOf(rows, texts);
  return scoreCase({ requests: [], probes }, before, after);
}

/** An answer and its rival by their log-probabilities. */
function contest(answer: number[], rival: number[]): Reading {
  const forced = (logProbs: number[]): Forced => said("0".repeat(logProbs.length), logProbs);
  return { answer: forced(answer), rival: forced(rival) };
}

Deno.test("ES, PS and NS compare mean log-probabilities; magnitudes are of their exponentials", () => {
  const LN = Math.log;
  const got = scores([
    // 0.5 on average against 0.25.
    { probe: asking("rewrite"), after: contest([LN(0.5), LN(0.5)], [LN(0.25)]) },
    { probe: asking("paraphrase"), after: contest([LN(0.1)], [LN(0.4)]) },
    { probe: asking("paraphrase"), after: contest([LN(0.9)], [LN(0.2)]) },
    { probe: asking("neighbour"), after: contest([LN(0.3)], [LN(0.1)]) },
    { probe: asking("attribute"), after: contest([LN(0.1)], [LN(0.3)]) },
  ]);
  allNear(got, {
    ES: 1,
    EM: 0.25,
    PS: 0.5,
    PM: (-0.3 + 0.7) / 2,
    NS: 1,
    NM: 0.2,
    "rank.rewrite": 1,
    "rank.paraphrase": 0.5,
    "rank.neighbour": 1,
    "rank.attribute": 0,
    // Jointly 0.25 against 0.25: a tie is no win.
    "rank.joint.rewrite": 0,
  });
});

Deno.test("A tie fails on both sides of a ranking", () => {
  const tie = contest([-1, -3], [-2]);
  const got = scores([{ probe: asking("rewrite"), after: tie }, { probe: asking("neighbour"), after: tie }]);
  allNear(got, { ES: 0, NS: 0, EM: 0, NM: 0 });
});

Deno.test("tf.token counts tokens and tf.seq whole answers, per kind", () => {
  const got = scores([
    { probe: asking("rewrite"), after: { answer: said("110") } },
    { probe: asking("paraphrase"), after: { answer: said("11") } },
    { probe: asking("paraphrase"), after: { answer: said("0001") } },
  ]);
  allNear(got, {
    "tf.token.rewrite": 2 / 3,
    "tf.seq.rewrite": 0,
    "tf.token.paraphrase": (1 + 1 / 4) / 2,
    "tf.seq.paraphrase": 1 / 2,
  });
});

Deno.test("EasyEdit's locality asks what changed, not what is right; sub-types weigh the same", () => {
  const local = (before: number[], after: number[], group: string) => {
    const forced = (argmax: number[]): Forced => ({ ...said("0".repeat(argmax.length)), argmax });
    const probe = asking("relation", { expect: "unchanged", group });
    return { probe, before: { answer: forced(before) }, after: { answer: forced(after) } };
  };
  const rows = [
    { probe: asking("rewrite", { expect: "new" }), after: { answer: said("10") } },
    { probe: asking("paraphrase", { expect: "new" }), after: { answer: said("1") } },
    local([7, 8], [7, 8], "A"),
    local([7, 8], [7, 9], "A"),
    local([7], [9], "B"),
    { probe: asking("alias", { expect: "new" }), after: { answer: said("1") } },
    { probe: asking("reasoning", { group: "hop" }), after: { answer: said("10") } },
    { probe: asking("reasoning", { group: "hop" }), after: { answer: said("00") } },
    // What should not change is no portability, whatever its kind.
    { probe: asking("logic", { expect: "unchanged", group: "B" }), after: { answer: said("1") } },
  ];
  allNear(scores(rows), {
    "easyedit.reliability": 0.5,
    "easyedit.generality": 1,
    "easyedit.locality.A": 0.75,
    "easyedit.locality.B": 0.5,
    "easyedit.locality": 0.625,
    // Without a group a probe goes by its kind.
    "easyedit.portability.alias": 1,
    "easyedit.portability.hop": 0.25,
    "easyedit.portability": 0.625,
    "survey.reliability": 0,
    "survey.generality": 1,
    "survey.locality": 1 / 2,
    "survey.portability": 1 / 3,
  });
});

Deno.test("zsRE pools tokens over answers; MEND counts whole answers and what was lost", () => {
  const unrelated = asking("unrelated", { expect: "unchanged" });
  const got = scores([
    { probe: asking("rewrite"), after: { answer: said("10") } },
    { probe: asking("paraphrase"), after: { answer: said("1111") } },
    { probe: asking("paraphrase"), after: { answer: said("01") } },
    { probe: unrelated, before: { answer: said("11") }, after: { answer: said("01") } },
    { probe: unrelated, before: { answer: said("0") }, after: { answer: said("0") } },
  ]);
  allNear(got, {
    "zsre.efficacy": 1 / 2,
    "zsre.paraphrase": 5 / 6,
    "zsre.specificity": 1 / 3,
    "mend.edit_success": 1 / 3,
    "mend.drawdown": 1 / 2,
  });
});

Deno.test("The unedited model: locality 1, drawdown 0, whatever it says", () => {
  const probe = asking("unrelated", { expect: "unchanged" });
  const got = scores([{ probe, after: { answer: said("01") } }]);
  allNear(got, { "easyedit.locality": 1, "survey.locality": 1, "mend.drawdown": 0, "zsre.specificity": 0.5 });
});

Deno.test("What probes and readings do not allow is absent", () => {
  assert.deepEqual(scores([]), {});
  assert.deepEqual(scores([{ probe: asking("generation", { answers: [] }), after: {} }]), {});
  // An answer without tokens says nothing; it would be 0/0.
  assert.deepEqual(scores([{ probe: asking("rewrite"), after: { answer: said(""), rival: said("0") } }]), {});
  const forced = scores([{ probe: asking("rewrite"), after: { answer: said("1") } }]);
  assert.deepEqual(Object.keys(forced).sort(), [
    "easyedit.reliability",
    "survey.reliability",
    "tf.seq.rewrite",
    "tf.token.rewrite",
  ]);
  // Locality needs both states.
  const probe = asking("forget", { expect: "unchanged" });
  const alone = scores([{ probe, before: {}, after: { answer: said("1") } }]);
  assert.deepEqual(Object.keys(alone).sort(), ["tf.seq.forget", "tf.token.forget"]);
});

Deno.test("aggregate() has mean, sd with n − 1 and 95 % interval over the cases that have a metric", () => {
  const { ES, PS } = aggregate([{ ES: 1 }, { ES: 0, PS: 0.5 }, { ES: 1 }, { ES: 0 }]);
  assert.deepEqual([ES.mean, ES.n, PS], [0.5, 4, { mean: 0.5, sd: 0, ci95: 0, n: 1 }]);
  near(ES.sd, Math.sqrt(1 / 3));
  near(ES.ci95, 1.96 * Math.sqrt(1 / 3) / 2);
  assert.deepEqual(aggregate([]), {});
});

Deno.test("harmonicScore() is the harmonic mean, and 0 when a part is 0", () => {
  near(harmonicScore(1, 0.5, 0.25), 3 / 7);
  assert.equal(harmonicScore(1, 0, 1), 0);
});
