/** zsRE in MEND's layouts: counterfactual targets and corrections, portability files, the original JSONL. */
import assert from "node:assert/strict";
import { brief, parse, parseText } from "./_files.ts";

const mend = {
  subject: "The Danube",
  src: "What city does The Danube cross?",
  pred: "Linz",
  rephrase: "Which city is on The Danube?",
  alt: "Rome",
  answers: ["Vienna", "Budapest"],
  loc: "nq question: who wrote hamlet",
  loc_ans: "Shakespeare",
  cond: "Linz >> Rome || What city does The Danube cross?",
};

Deno.test("zsRE (MEND): the target is alt; empty ones are left out, right ones told", () => {
  const dataset = parse([mend, { ...mend, alt: "" }, { ...mend, alt: "budapest" }]);
  assert.equal(dataset.layout, "zsRE (MEND)");
  assert.deepEqual([dataset.total, dataset.cases.length], [3, 2]);
  assert.deepEqual(brief(dataset.cases[0]), [
    "rewrite What city does The Danube cross? => Rome not Vienna (new)",
    "paraphrase Which city is on The Danube? => Rome not Vienna (new)",
    "unrelated who wrote hamlet? => Shakespeare (unchanged)",
  ]);
  assert.deepEqual(dataset.unusable.map(({ index, why }) => [index, why]), [
    [1, "The record has an empty alt, the target"],
  ]);
  assert.equal(dataset.cases[1].requests[0].true, undefined);
  assert.match(dataset.notes.join("\n"), /1 record \(line 30\): the target is already a right answer/);
  assert.ok(dataset.gives.includes("mend.drawdown") && !dataset.gives.includes("zsre.efficacy"));
});

Deno.test("zsRE (MEND): with target answer the edit is ROME's correction, alt being empty or not", () => {
  const dataset = parse([mend, { ...mend, alt: "" }], { target: "answer" });
  assert.equal(dataset.cases.length, 2);
  assert.equal(dataset.cases[0].requests[0].target, " Vienna");
  assert.equal(
    brief(dataset.cases[0])[0],
    "rewrite What city does The Danube cross? => Vienna|Budapest (new)",
  );
  assert.ok(dataset.gives.includes("zsre.specificity") && !dataset.gives.includes("mend.drawdown"));
});

Deno.test("zsRE (MEND): portability files add one-hop, inverse and alias questions", () => {
  const [one] = parse([{
    ...mend,
    portability: { "Recalled Relation": "…", "New Question": "Which land?", "New Answer": "Italy" },
    "inverse question": "Which river crosses Rome?",
    alter_subject_question: "What city does the Donau cross?",
  }]).cases;
  assert.deepEqual(brief(one).slice(3), [
    "reasoning:one-hop Which land? => Italy (answer)",
    "logic:inverse Which river crosses Rome? => The Danube (answer)",
    "alias:subject-replace What city does the Donau cross? => Rome not Vienna (new)",
  ]);
});

Deno.test("zsRE (MEND, original JSONL): the first alternative is the target", () => {
  const record = {
    input: "What city does The Danube cross?",
    prediction: "Linz",
    alternatives: ["Rome", "Oslo"],
    filtered_rephrases: ["Which city is on The Danube?"],
    output: [{ answer: "Vienna" }],
    meta: { sub_surface: ["The Danube"] },
  };
  const dataset = parseText(
    `${JSON.stringify(record)}\n${JSON.stringify({ ...record, meta: null })}\n`,
    "dev.jsonl",
  );
  assert.equal(dataset.layout, "zsRE (MEND, original JSONL)");
  assert.deepEqual(brief(dataset.cases[0]), [
    "rewrite What city does The Danube cross? => Rome not Vienna (new)",
    "paraphrase Which city is on The Danube? => Rome not Vienna (new)",
  ]);
  assert.deepEqual(dataset.unusable, [
    { index: 1, line: 2, why: 'The record names no subject (neither "subject" nor "meta.sub_surface")' },
  ]);
});
