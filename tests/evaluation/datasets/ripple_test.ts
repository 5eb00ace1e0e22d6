/** RippleEdits: names recovered from labels and templates, criteria with conditions. */
import assert from "node:assert/strict";
import { brief, parse } from "./_files.ts";

const query = (prompt: string, subject: string, relation: string, value: string, target: string) => ({
  prompt,
  answers: [{ value, aliases: [`${value}!`, "x", "7"] }],
  query_type: "regular",
  subject_id: subject,
  relation,
  target_ids: [target],
  phrase: null,
});

const test = (queries: object[], condition_queries: object[] = [], test_condition = "OR") => [
  { test_queries: queries, test_condition, condition_queries },
];

const ada = {
  example_type: "popular",
  edit: {
    prompt: "The land of Ada King is New Peru.",
    subject_id: "Q1",
    relation: "LAND",
    target_id: "Q9",
    original_fact: { prompt: "The land of Ada King is New Zealand.", subject_id: "Q1", target_id: "Q8" },
  },
  Logical_Generalization: test(
    [query("The tongue of Ada King is", "Q1", "TONGUE", "Spanish", "Q20")],
    [],
    "AND",
  ),
  Compositionality_I: [],
  Compositionality_II: test(
    [query("The land of the aunt of Bo is", "Q3", "LAND", "New Peru", "Q9")],
    [query("The aunt of Bo is", "Q3", "AUNT", "Ada King", "Q1")],
  ),
  Subject_Aliasing: [],
  Forgetfulness: [],
  Relation_Specifity: test([query("The mother of Ada King is", "Q1", "MOTHER", "Eve", "Q21")]),
};

const bo = {
  example_type: "recent",
  edit: { prompt: "The mother of Bo is Ina Ray.", subject_id: "Q3", relation: "MOTHER", target_id: "Q30" },
  Relation_Specifity: test([
    query("The tongue of Bo is", "Q3", "TONGUE", "Danish", "Q22"),
    query("The mother of Cy is", "Q4", "MOTHER", "Zoe", "Q23"),
  ]),
};

Deno.test("RippleEdits: six criteria become probes with tests and conditions", () => {
  const dataset = parse([ada, bo]);
  assert.equal(dataset.layout, "RippleEdits");
  const [one, two] = dataset.cases;
  // The label of Q9 says "New Peru", so the common word New is not taken for the prompt's.
  assert.deepEqual(one.requests, [
    { prompt: "The land of {} is", subject: "Ada King", target: " New Peru", true: " New Zealand" },
  ]);
  assert.deepEqual(brief(one), [
    "rewrite The land of Ada King is => New Peru|New Peru!|7 not New Zealand (new)",
    "logic:Logical_Generalization The tongue of Ada King is => Spanish|Spanish!|7 (answer)",
    "reasoning:Compositionality_II The land of the aunt of Bo is => New Peru|New Peru!|7 (answer)",
    "relation:Relation_Specificity The mother of Ada King is => Eve|Eve!|7 (answer)",
  ]);
  assert.deepEqual(one.probes.map(({ test }) => test?.combine), [undefined, "all", "any", "any"]);
  assert.deepEqual(one.probes[2].test?.conditions, [
    { prompt: "The aunt of Bo is", answers: [["Ada King", "Ada King!", "7"]] },
  ]);
  // Neither label is known: subject and target come from the templates of TONGUE and MOTHER.
  assert.deepEqual(two.requests, [
    { prompt: "The mother of {} is", subject: "Bo", target: " Ina Ray", true: undefined },
  ]);
  assert.ok(dataset.gives.includes("ripple.Relation_Specificity"));
});

Deno.test("RippleEdits: an edit whose names cannot be told is left out with the reason", () => {
  const alone = {
    edit: { prompt: "Somebody wrote something.", subject_id: "Q70", target_id: "Q71" },
    Forgetfulness: [],
  };
  const noTarget = { ...bo, edit: { ...bo.edit, prompt: "Bo has a mother called Ina.", relation: "OTHER" } };
  const { unusable } = parse([ada, bo, alone, noTarget]);
  assert.deepEqual(unusable.map(({ index, why }) => [index, why]), [
    [2, "The record's edit is a sentence in which the subject cannot be told: no query names it"],
    [3, "The record's edit is a sentence in which the target cannot be told: no label or template fits"],
  ]);
});

Deno.test("RippleEdits: one odd prompt among many does not spoil a relation's template", () => {
  const names = ["Di Fo", "Ed", "Flo Ga", "Gus", "Hal", "Ivy"];
  const asked = names.map((name, i) =>
    query(`The mother of ${name} is`, `Q${50 + i}`, "MOTHER", `M${i}`, `Q${80 + i}`)
  );
  const odd = query("Mother: ???", "Q60", "MOTHER", "Nobody", "Q99");
  const edit = {
    prompt: "The mother of Flo Ga is Jo Ann.",
    subject_id: "Q52",
    relation: "MOTHER",
    target_id: "Q77",
  };
  const { cases } = parse([{ edit, Relation_Specifity: test([...asked, odd]) }]);
  assert.deepEqual(cases[0].requests, [
    { prompt: "The mother of {} is", subject: "Flo Ga", target: " Jo Ann", true: undefined },
  ]);
});
