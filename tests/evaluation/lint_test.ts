/** What is said about edit requests before they are made. */
import assert from "node:assert/strict";
import type { EditRequest } from "../../editors/requests.ts";
import { type Finding, lintRequests } from "../../evaluation/lint.ts";

const request = (more: Partial<EditRequest> = {}): EditRequest => ({
  prompt: "{} is the capital of",
  subject: "Paris",
  target: "Italy",
  true: "France",
  ...more,
});

const brief = (findings: Finding[]) =>
  findings.map(({ severity, index, message }) => `${index} ${severity}: ${message}`);

/** One request and all that is said about it. */
const ONE: [what: string, request: Partial<EditRequest>, findings: string[]][] = [
  ["a sound request", {}, []],
  ["a plain prompt", { prompt: "Paris is the capital of" }, []],
  ["a target with its space", { target: " Italy" }, []],
  ["a missing subject", { prompt: "It is the capital of" }, [
    '0 error: The subject "Paris" is not in the prompt "It is the capital of"',
  ]],
  ["a subject in another case", { prompt: "PARIS is the capital of" }, [
    '0 error: The subject "Paris" is not in the prompt "PARIS is the capital of"; it is there in another case',
  ]],
  ["an empty subject", { subject: " " }, ["0 error: The subject is empty"]],
  ["two slots", { prompt: "{} and {} are" }, ['0 error: The prompt has 2 "{}"; exactly one is allowed']],
  ["a repeated subject", { prompt: "Paris, yes, Paris is the capital of" }, [
    '0 warning: The subject "Paris" is in the prompt more than once; the edit is made at one place only',
  ]],
  ["a subject beside its slot", { prompt: "In Paris, {} is the capital of" }, [
    '0 warning: The subject "Paris" is in the prompt more than once; the edit is made at one place only',
  ]],
  ["an empty target", { target: "  " }, ["0 error: The target is empty"]],
  ["a target with a space at its end", { target: "Italy " }, [
    '0 warning: The target "Italy " has odd white space, which becomes part of the answer',
  ]],
  ["a target with a line break", { target: "\nItaly" }, [
    '0 warning: The target "\\nItaly" has odd white space, which becomes part of the answer',
  ]],
  ["a whole sentence as target", { target: "Italy ".repeat(13).trim() }, [
    "0 warning: The target has 13 words; methods that edit one association are made for short ones",
  ]],
  ["the truth as target", { target: "france" }, [
    '0 warning: The target "france" is the true answer: there is nothing to edit',
  ]],
  ["a prompt that ends with the target", { prompt: "{} is the capital of Italy" }, [
    '0 warning: The prompt already ends with the target "Italy"',
  ]],
];

for (const [what, fields, findings] of ONE) {
  Deno.test(`lintRequests on ${what}`, () => {
    assert.deepEqual(brief(lintRequests([request(fields)])), findings);
  });
}

Deno.test("lintRequests knows what the model already answers, to the end of a word", () => {
  const said = (current: string) =>
    brief(lintRequests([request({ target: "Ital" })], { current: [current] }));
  assert.deepEqual(said(" Ital, of course"), ['0 warning: The model already answers "Ital"']);
  assert.deepEqual(said(" Italy"), []);
});

Deno.test("lintRequests finds duplicates and contradictions, by template or by relation", () => {
  const list = [
    request(),
    request({ subject: "paris", target: "italy." }),
    request({ prompt: "Paris is the capital of", target: "Spain" }),
    request({ prompt: "{} is the chief city of", target: "Spain" }),
  ];
  assert.deepEqual(brief(lintRequests(list)).filter((text) => !text.includes("hint")), [
    "1 warning: It repeats request 1",
    '2 error: It contradicts request 1: "Italy" there, "Spain" here',
  ]);
  const withRelations = lintRequests(list, { relations: ["P1", "P1", "P1", "P1"], lines: [4, 5, 6, 9] });
  assert.deepEqual(withRelations.filter(({ severity }) => severity === "error"), [
    {
      severity: "error",
      index: 2,
      line: 6,
      message: 'It contradicts request 1: "Italy" there, "Spain" here',
    },
    {
      severity: "error",
      index: 3,
      line: 9,
      message: 'It contradicts request 1: "Italy" there, "Spain" here',
    },
  ]);
});

Deno.test("lintRequests hints at subjects that may be the same", () => {
  const subjects = ["Barack Obama", "Obama", "BARACK OBAMA", "Obama Beach Resort", "Obamacare", "POTUS 44"];
  const list = subjects.map((subject) => request({ subject }));
  const aliases = [["POTUS 44"]];
  const hints = brief(lintRequests(list, { aliases })).filter((text) => text.includes("hint"));
  assert.deepEqual(hints, [
    '1 hint: The subject "Obama" may be "Barack Obama" of request 1',
    '2 hint: The subject "BARACK OBAMA" is written "Barack Obama" in request 1',
    '3 hint: The subject "Obama Beach Resort" may be "Obama" of request 2',
    '5 hint: The subject "POTUS 44" is by its aliases "Barack Obama" of request 1',
  ]);
});

Deno.test("lintRequests hints at reverse relations", () => {
  const list = [
    request({ prompt: "{} is married to", subject: "Ann", target: "Bob", true: undefined }),
    request({ prompt: "{}'s wife is", subject: "Bob", target: " Ann", true: undefined }),
  ];
  assert.match(
    brief(lintRequests(list)).join("\n"),
    /^1 hint: Its subject is the target of request 1 and the other way/,
  );
});

Deno.test("lintRequests is quick on many requests", () => {
  const list = Array.from(
    { length: 20_000 },
    (_, n) => request({ subject: `John of Town ${n}`, target: `T${n}` }),
  );
  const start = performance.now();
  assert.deepEqual(lintRequests(list), []);
  // It takes some tenths of a second; comparing all pairs takes minutes.
  assert.ok(performance.now() - start < 10_000);
});
