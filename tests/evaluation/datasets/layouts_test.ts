/** Every layout, on small records of our own: which edit is asked for, and which probes come of it. */
import assert from "node:assert/strict";
import { brief, parse, parseText } from "./_files.ts";

const rewrite = {
  prompt: "{} flows through",
  relation_id: "P206",
  target_new: { str: "Rome" },
  target_true: { str: "Vienna" },
  subject: "The Danube",
};

const cf = {
  case_id: 7,
  requested_rewrite: rewrite,
  paraphrase_prompts: ["The city on The Danube is "],
  neighborhood_prompts: ["The Wien flows through"],
  attribute_prompts: ["The Tiber flows through"],
  generation_prompts: ["On The Danube,", "On The Danube,"],
};

Deno.test("CounterFact (ROME): all prompts, with answers and rivals that ranking compares", () => {
  const dataset = parse([cf]);
  assert.equal(dataset.layout, "CounterFact (ROME)");
  const [one] = dataset.cases;
  assert.equal(one.id, "7");
  assert.deepEqual(one.requests, [
    { prompt: "{} flows through", subject: "The Danube", target: " Rome", true: " Vienna" },
  ]);
  assert.deepEqual(brief(one), [
    "rewrite The Danube flows through => Rome not Vienna (new)",
    "paraphrase The city on The Danube is => Rome not Vienna (new)",
    "generation On The Danube, =>  (new)",
    "generation On The Danube, =>  (new)",
    "neighbour The Wien flows through => Vienna not Rome (unchanged)",
    "attribute The Tiber flows through => Rome not Vienna (unchanged)",
  ]);
  for (const metric of ["ES", "PS", "NS", "Score", "fluency", "easyedit.locality"]) {
    assert.ok(dataset.gives.includes(metric), metric);
  }
  assert.deepEqual(
    dataset.lacks.map(({ metric }) => metric),
    ["consistency", "easyedit.portability", "zsre.*", "mend.*", "mquake.*", "ripple.*"],
  );
});

Deno.test("CounterFact (ROME): atlas' two-hop questions have the answer of before as their rival", () => {
  const hop = {
    prompt: "The country of The Danube's city is",
    answer_before: "Austria",
    answer_after: "Italy",
  };
  const [one] = parse([{ ...cf, two_hop: [hop] }]).cases;
  assert.equal(
    brief(one).at(-1),
    "reasoning:two-hop The country of The Danube's city is => Italy not Austria (answer)",
  );
});

Deno.test("CounterFact (ROME): portability and locality files add their probes", () => {
  const [one] = parse([{
    ...cf,
    portability: {
      "Recalled Relation": "(Rome, country, Italy)",
      "New Question": "Which land?",
      "New Answer": "Italy",
    },
    alternative_subject: "The Donau",
    distracting_neighborhood_prompts: ["The Danube flows through Rome. The Wien flows through"],
    unrelated_relation: { question: "The Danube rises in", object: "Germany" },
  }]).cases;
  assert.deepEqual(one.subjectAliases, ["The Donau"]);
  assert.deepEqual(brief(one).slice(6), [
    "distract The Danube flows through Rome. The Wien flows through => Vienna not Rome (unchanged)",
    "alias:subject-replace The Donau flows through => Rome not Vienna (new)",
    "reasoning:one-hop Which land? => Italy (answer)",
    "relation:other-attribution The Danube rises in => Germany (unchanged)",
  ]);
});

Deno.test("CounterFact (ROME): repeated and contradictory edits are named, as in plain CounterFact", () => {
  const to = (case_id: number, str: string) => ({
    ...cf,
    case_id,
    requested_rewrite: { ...rewrite, target_new: { str } },
  });
  const dataset = parse([to(1, "Rome"), to(2, "Oslo"), to(3, "Rome"), to(4, "Oslo")]);
  assert.deepEqual(dataset.duplicates, [{ id: "3", of: "1" }, { id: "4", of: "2" }]);
  assert.deepEqual(dataset.conflicts, [{ id: "2", of: "1" }, { id: "4", of: "1" }]);
  assert.match(dataset.notes.join("\n"), /contradict/);
});

const flat = {
  case_id: 4,
  prompt: "The Danube flows through",
  subject: "The Danube",
  target_new: "Rome",
  ground_truth: "Vienna",
  rephrase_prompt: "On The Danube you can visit",
  locality_prompt: "The Wien flows through",
  locality_ground_truth: "Vienna",
};

Deno.test("CounterFact (EasyEdit): one neighbour, and a rephrase prompt that gives no PS", () => {
  const dataset = parse([flat]);
  assert.equal(dataset.layout, "CounterFact (EasyEdit)");
  assert.deepEqual(brief(dataset.cases[0]), [
    "rewrite The Danube flows through => Rome not Vienna (new)",
    "paraphrase On The Danube you can visit => Rome not Vienna (new)",
    "neighbour The Wien flows through => Vienna not Rome (unchanged)",
  ]);
  assert.ok(dataset.gives.includes("NS") && dataset.gives.includes("easyedit.generality"));
  assert.match(dataset.lacks.find(({ metric }) => metric === "PS")!.why, /mixed/);
  assert.match(dataset.notes.join("\n"), /not CounterFact's PS/);
});

Deno.test("zsRE (EasyEdit): flat requests, with one-hop questions", () => {
  const { case_id: _, ...rest } = flat;
  const dataset = parse([{
    ...rest,
    locality_prompt: "nq question: who wrote hamlet",
    locality_ground_truth: "Shakespeare",
    portability_prompt: "Which land does it cross?",
    portability_ground_truth: "Italy",
  }]);
  assert.equal(dataset.layout, "zsRE (EasyEdit)");
  assert.deepEqual(brief(dataset.cases[0]).slice(2), [
    "unrelated who wrote hamlet? => Shakespeare (unchanged)",
    "reasoning:one-hop Which land does it cross? => Italy (answer)",
  ]);
});

Deno.test("KnowEdit: ground truths as text, list of aliases, and list of such lists", () => {
  const dataset = parse([{
    subject: "The Danube",
    prompt: "The Danube flows through",
    target_new: "Rome",
    ground_truth: ["Vienna"],
    rephrase: "On The Danube lies",
    portability: {
      Subject_Aliasing: [{ prompt: "The Donau flows through", ground_truth: "Rome" }],
      Reasoning: [{ prompt: "Its land is", ground_truth: ["Italy", "Italia"] }],
      Logical_Generalization: [{
        prompt: "Rivers of Rome are",
        ground_truth: [["Tiber", "Tevere"], ["Danube"]],
      }],
    },
    locality: {
      Relation_Specificity: [{ prompt: "The Danube rises in", ground_truth: [["Germany"]] }],
      Forgetfulness: [{ prompt: "It also crosses", ground_truth: "" }, {
        prompt: "And",
        ground_truth: ["Linz", ""],
      }],
    },
  }]);
  assert.equal(dataset.layout, "KnowEdit");
  assert.deepEqual(brief(dataset.cases[0]), [
    "rewrite The Danube flows through => Rome not Vienna (new)",
    "paraphrase On The Danube lies => Rome not Vienna (new)",
    "alias:Subject_Aliasing The Donau flows through => Rome (answer)",
    "reasoning:Reasoning Its land is => Italy|Italia (answer)",
    "logic:Logical_Generalization Rivers of Rome are => Tiber|Tevere & Danube (answer)",
    "relation:Relation_Specificity The Danube rises in => Germany (unchanged)",
    "forget:Forgetfulness And => Linz (unchanged)",
  ]);
  assert.match(dataset.notes.join("\n"), /1 record \(line 2\): questions without an answer/);
});

Deno.test("KnowEdit: WikiBio, ConvSent and Sanitation", () => {
  const bio = parse([{
    concept: "ada",
    text: "This is about ada.",
    labels: "She wrote programs.",
    locality: { Relation_Specificity: [{ prompt: "ada died in", ground_truth: ["London"] }] },
  }]);
  assert.equal(bio.layout, "KnowEdit (WikiBio)");
  assert.deepEqual(bio.cases[0].requests, [
    { prompt: "This is about {}.", subject: "ada", target: " She wrote programs.", true: undefined },
  ]);
  assert.equal(brief(bio.cases[0])[1], "relation:Relation_Specificity ada died in => London (unchanged)");

  const sent = parse([
    { ent: "tea", pos: ["I love it.", "So good."], neg: ["No."] },
    { ent: "rain", pos: ["Fresh!"], neg: ["Wet."] },
  ]);
  assert.equal(sent.layout, "KnowEdit (ConvSent)");
  assert.deepEqual(brief(sent.cases[0]), [
    "rewrite What do you think of tea? => I love it. not No. (new)",
    "paraphrase How do you feel about tea? => I love it. not No. (new)",
    "paraphrase What is your opinion on tea? => I love it. not No. (new)",
    "unrelated What do you think of rain? => Fresh! (unchanged)",
  ]);

  const clean = parse({
    K_F: [1, 2, 3].map((n) => ({ question: `Secret ${n}?`, target_new: "I can't say.", ground_truth: "x" })),
    K_R: [1, 2].map((n) => ({ question: `Known ${n}?`, ground_truth: `a${n}` })),
  });
  assert.equal(clean.layout, "KnowEdit (Sanitation)");
  assert.deepEqual(clean.cases.map((one) => [one.line, ...brief(one)]), [
    [3, "rewrite Secret 1? => I can't say. not x (new)", "unrelated Known 1? => a1 (unchanged)"],
    [8, "rewrite Secret 2? => I can't say. not x (new)", "unrelated Known 2? => a2 (unchanged)"],
    [13, "rewrite Secret 3? => I can't say. not x (new)", "unrelated Known 1? => a1 (unchanged)"],
  ]);
});

Deno.test("MQuAKE: several edits a case, questions that pass if any does, links that pass together", () => {
  const dataset = parse([{
    case_id: 1,
    requested_rewrite: [
      { ...rewrite, question: "Where does The Danube flow?" },
      {
        ...rewrite,
        subject: "Rome",
        prompt: "{} lies in",
        target_new: { str: "Peru" },
        target_true: { str: "Italy" },
      },
    ],
    questions: ["Q1?", "Q2?", "Q3?"],
    answer: "Austria",
    answer_alias: [],
    new_answer: "Peru",
    new_answer_alias: ["Republic of Peru"],
    single_hops: [],
    new_single_hops: [
      {
        question: "Where does it flow?",
        cloze: "The Danube flows through",
        answer: "Rome",
        answer_alias: ["Roma"],
      },
      { question: "Where is Rome?", answer: "Peru", answer_alias: [] },
    ],
  }]);
  assert.equal(dataset.layout, "MQuAKE");
  const [one] = dataset.cases;
  assert.equal(one.requests.length, 2);
  assert.deepEqual(brief(one), [
    "rewrite The Danube flows through => Rome not Vienna (new)",
    "paraphrase:question Where does The Danube flow? => Rome not Vienna (new)",
    "rewrite Rome lies in => Peru not Italy (new)",
    ...["Q1?", "Q2?", "Q3?"].map((q) => `multi-hop ${q} => Peru|Republic of Peru not Austria (answer)`),
    "single-hop The Danube flows through => Rome|Roma (answer)",
    "single-hop Where is Rome? => Peru (answer)",
  ]);
  const tests = new Set(one.probes.flatMap(({ test }) => test ? [`${test.id} ${test.combine}`] : []));
  assert.deepEqual([...tests], ["multi-hop any", "single-hops all"]);
  assert.ok(dataset.gives.includes("mquake.multihop"));
});

Deno.test("QAEdit: five unrelated questions", () => {
  const dataset = parse([{
    id: 3,
    source: "nq",
    prompt: "who built the danube bridge",
    target: "Leo",
    subject: "danube bridge",
    rephrase: "the danube bridge was built by whom?",
    locality: [{ loc: "who wrote hamlet?", loc_ans: "Shakespeare" }, {
      loc: "capital of peru",
      loc_ans: "Lima",
    }],
  }]);
  assert.equal(dataset.layout, "QAEdit");
  assert.deepEqual(brief(dataset.cases[0]), [
    "rewrite who built the danube bridge => Leo (new)",
    "paraphrase the danube bridge was built by whom? => Leo (new)",
    "unrelated who wrote hamlet? => Shakespeare (unchanged)",
    "unrelated capital of peru? => Lima (unchanged)",
  ]);
  assert.match(dataset.lacks.find(({ metric }) => metric === "ES")!.why, /no true answer/);
});

Deno.test("the user's own: JSON with lists, CSV with bars, and foreign names of the fields", () => {
  const json = parse([{
    id: "d1",
    prompt: "{} flows through",
    subject: "The Danube",
    target: "Rome",
    true: "Vienna",
    rephrase: ["The city on The Danube is"],
    neighbours: ["The Wien flows through"],
    locality: [{ prompt: "Hamlet is by", answer: "Shakespeare" }, "Faust is by => Goethe"],
    aliases: ["The Donau"],
    references: ["The Tiber flows through Rome."],
  }]);
  const csv = parseText(
    "id,Prompt,subject,target_new,ground_truth,paraphrase,neighbours,locality,aliases\n" +
      'd1,{} flows through,The Danube,Rome,Vienna,"The city on The Danube is",The Wien flows through,' +
      "Hamlet is by => Shakespeare | Faust is by => Goethe,The Donau\n",
    "x.csv",
  );
  assert.equal(json.layout, "facts (prompt, subject, target)");
  assert.deepEqual(brief(json.cases[0]), [
    "rewrite The Danube flows through => Rome not Vienna (new)",
    "paraphrase The city on The Danube is => Rome not Vienna (new)",
    "alias The Donau flows through => Rome not Vienna (new)",
    "neighbour The Wien flows through => Vienna not Rome (unchanged)",
    "unrelated Hamlet is by => Shakespeare (unchanged)",
    "unrelated Faust is by => Goethe (unchanged)",
  ]);
  const { references, ...rest } = json.cases[0];
  assert.deepEqual(references, ["The Tiber flows through Rome."]);
  assert.deepEqual(csv.cases, [rest]);
  assert.ok(json.gives.includes("consistency") && !csv.gives.includes("consistency"));
});

Deno.test("a subject in another case than its prompt is repaired where there is one place only, and told", () => {
  const fact = { prompt: "The danube flows through", subject: "The Danube", target: "Rome" };
  const dataset = parse([fact, { ...fact, prompt: "the danube is THE DANUBE" }, {
    ...fact,
    prompt: "It flows",
  }]);
  assert.equal(dataset.cases[0].requests[0].subject, "The danube");
  assert.match(dataset.notes.join("\n"), /1 record \(line 2\): the subject is in another case/);
  assert.deepEqual(dataset.unusable.map(({ line, why }) => [line, why]), [
    [7, 'The record has a subject that is not in its prompt: "The Danube" in "the danube is THE DANUBE"'],
    [12, 'The record has a subject that is not in its prompt: "The Danube" in "It flows"'],
  ]);
});
