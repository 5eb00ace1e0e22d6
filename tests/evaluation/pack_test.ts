import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { XMLParser, XMLValidator } from "npm:fast-xml-parser@5.12.1";
import { applyDeltas } from "../../editors/edit.ts";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import { escapeXml, junitXml } from "../../evaluation/junit.ts";
import { keepProbe, type PackProbe, parsePack } from "../../evaluation/pack.ts";
import { answerIn, type PackResult, readProbes, requireHeld, runProbes } from "../../evaluation/pack_run.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "../editors/_prompts.ts";
import { noise } from "../patches/_models.ts";

const line = (value: object) => JSON.stringify(value);
const CHANGE = { expect: "change", prompt: "Paris is in", answer: "Italy" };
const KEEP = { expect: "keep", prompt: "Rome is in" };

/** Broken second lines, and what is said of them after "facts.jsonl line 2 ". */
const BROKEN: [what: string, second: string, message: RegExp][] = [
  ["no JSON", '{"expect": "keep", "prompt": "Rome', /^is not JSON: /],
  ["a list", '["keep", "Rome is in"]', /^is not an object with expect, prompt and answer$/],
  ["a bare value", "42", /^is not an object/],
  ["two objects", `${line(KEEP)} ${line(KEEP)}`, /^is not JSON: /],
  ["no expect", line({ ...CHANGE, expect: undefined }), /^has no "expect": change or keep$/],
  [
    "another expect",
    line({ ...CHANGE, expect: "stay" }),
    /^has "stay" as "expect", which is not change or keep$/,
  ],
  ["no prompt", line({ expect: "keep" }), /^has no "prompt"$/],
  ["a number for a prompt", line({ ...KEEP, prompt: 7 }), /^has a "prompt" that is not text$/],
  ["an empty prompt", line({ ...KEEP, prompt: "  " }), /^has an empty "prompt"$/],
  ["nothing to change to", line({ ...CHANGE, answer: undefined }), /^has no "answer"$/],
  [
    "an object for an answer",
    line({ ...CHANGE, answer: { text: "x" } }),
    /^has an "answer" that is neither text nor/,
  ],
  ["a number in the aliases", line({ ...CHANGE, answer: ["Italy", 3] }), /^has a "answer" that is not text$/],
  ["no alias", line({ ...CHANGE, answer: [] }), /^has an "answer" without any text$/],
  ["an empty answer", line({ ...CHANGE, answer: "" }), /^has an empty "answer"$/],
  [
    "another mode",
    line({ ...CHANGE, mode: "fuzzy" }),
    /^has "fuzzy" as "mode", which is not prefix, exact, .* or token$/,
  ],
  ["rank without a rival", line({ ...CHANGE, mode: "rank" }), /^has the mode "rank", which needs a "rival"$/],
  ["an empty rival", line({ ...CHANGE, mode: "rank", rival: "" }), /^has an empty "rival"$/],
  [
    "a mode that wants an answer",
    line({ ...KEEP, mode: "contains" }),
    /^has the mode "contains", which needs an "answer"$/,
  ],
  [
    "a slot without a subject",
    line({ ...KEEP, prompt: "{} is in" }),
    /^has "\{\}" in its prompt and no "subject" for it$/,
  ],
  [
    "two slots",
    line({ ...KEEP, prompt: "{} and {}", subject: "Rome" }),
    /^has 2 "\{\}" in its prompt; at most one/,
  ],
  [
    "a subject from elsewhere",
    line({ ...KEEP, subject: "Paris" }),
    /^has a subject that is not in its prompt: "Paris"$/,
  ],
  ["a subject that is no text", line({ ...KEEP, subject: null }), /^has a "subject" that is not text$/],
  ["an id twice", line({ ...KEEP, id: "first" }), /^has the id "first" of line 1$/],
  ["an id that is no text", line({ ...KEEP, id: true }), /^has a "id" that is not text$/],
  ["a key twice", '{"expect": "keep", "prompt": "a", "prompt": "b"}', /^: the key "prompt" appears twice$/],
];

for (const [what, second, message] of BROKEN) {
  Deno.test(`parsePack() refuses ${what} with its line`, () => {
    const text = [line({ ...CHANGE, id: "first" }), second, line(KEEP)].join("\n");
    assert.throws(() => parsePack(text, "facts.jsonl"), (error: InputError) => {
      assert.ok(error instanceof InputError, String(error));
      const found = error.message.match(/^(?:Cannot read )?facts\.jsonl line 2 ?(.*)$/s);
      assert.ok(found, error.message);
      assert.match(found[1], message);
      assert.doesNotMatch(error.message, /\.$|\n|undefined|\[object/);
      return true;
    });
  });
}

Deno.test("parsePack() refuses a pack without probes, and names all bad lines", () => {
  for (const text of ["", "\n\n", "# nothing\n// here\n"]) {
    assert.throws(() => parsePack(text, "facts.jsonl"), /^InputError: facts\.jsonl holds no probe$/);
  }
  const text = ["{", line(KEEP), "", "7", line({ ...KEEP, prompt: 1 })].join("\n");
  assert.throws(() => parsePack(text, "p"), (error: InputError) => {
    assert.match(error.message, /^p line 1 is not JSON/);
    assert.equal(error.hint, "Also wrong: lines 4, 5");
    return true;
  });
});

Deno.test("parsePack() reads probes with their lines, fills subjects in, and leaves comments out", () => {
  const text = "\ufeff# must change\r\n" + [
    line({ ...CHANGE, prompt: "{} is in ", subject: " Paris ", answer: " Italy ", id: 7, name: "moved" }),
    "",
    "   // must not",
    line({ ...KEEP, subject: "Rome", answer: ["Italy", "Italia"], mode: "exact" }),
    line({ ...CHANGE, mode: "rank", rival: "France" }),
    line(KEEP),
    line({ ...KEEP, mode: "token" }),
    line({ ...CHANGE, rival: "France", anwser: "x", zebra: 1 }),
  ].join("\r\n") + "\r\n";
  const { name, probes, warnings } = parsePack(text, "facts.jsonl");
  assert.equal(name, "facts.jsonl");
  const wanted: PackProbe[] = [
    {
      line: 2,
      id: "7",
      name: "moved",
      expect: "change",
      prompt: "Paris is in",
      answers: ["Italy"],
      mode: "prefix",
    },
    { line: 5, expect: "keep", prompt: "Rome is in", answers: ["Italy", "Italia"], mode: "exact" },
    { line: 6, expect: "change", prompt: "Paris is in", answers: ["Italy"], rival: "France", mode: "rank" },
    { line: 7, expect: "keep", prompt: "Rome is in", answers: [], mode: "exact" },
    { line: 8, expect: "keep", prompt: "Rome is in", answers: [], mode: "token" },
    { line: 9, expect: "change", prompt: "Paris is in", answers: ["Italy"], rival: "France", mode: "prefix" },
  ];
  assert.deepEqual(probes, wanted);
  assert.deepEqual(warnings, [
    'facts.jsonl line 9 has an unknown key "anwser"',
    'facts.jsonl line 9 has an unknown key "zebra"',
    'facts.jsonl line 9 has a "rival", which only the mode "rank" compares with',
  ]);
  const [typo] = parsePack(line({ ...KEEP, anwser: "Italy" }), "p").warnings;
  assert.equal(typo, 'p line 1 has an unknown key "anwser"; is "answer" meant');
});

Deno.test("parsePack() says what is wrong with any text, and nothing else escapes", () => {
  const value = fc.record({
    expect: fc.constantFrom("change", "keep", "", 1),
    prompt: fc.oneof(fc.string(), fc.constant("{} is in"), fc.integer()),
    answer: fc.oneof(fc.string(), fc.array(fc.string()), fc.anything()),
    mode: fc.constantFrom("prefix", "rank", "token", "x", null),
    subject: fc.string(),
  }, { requiredKeys: [] });
  fc.assert(fc.property(fc.oneof(fc.string(), value.map((v) => JSON.stringify(v))), (text) => {
    try {
      for (const { prompt } of parsePack(text, "p").probes) assert.notEqual(prompt.trim(), "");
    } catch (error) {
      assert.ok(error instanceof InputError, String(error));
      assert.match(error.message, /^(Cannot read )?p (line \d+|holds no probe)/);
    }
  }));
});

Deno.test("answerIn() stops naturally, but not within an answer that the text begins with", () => {
  assert.equal(answerIn(" Paris. The country", ["Paris"]), " Paris");
  assert.equal(answerIn(" St. Louis. The", ["Saint Louis", "St. Louis"]), " St. Louis");
  assert.equal(answerIn(" St. Louis. The", ["Paris"]), " St");
  assert.equal(answerIn(" 3.5 metres.", ["3", "3.5"]), " 3.5 metres");
  assert.equal(answerIn("", ["x"]), "");
});

const probe = (rest: Partial<PackProbe>): PackProbe => ({
  line: 1,
  expect: "change",
  prompt: "The capital of France is",
  answers: ["Paris"],
  mode: "prefix",
  ...rest,
});

Deno.test(
  "runProbes() passes and fails probes of every mode, and says what the model says",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    // atlas says " Paris. The country that contains …"
    const cases: [rest: Partial<PackProbe>, passes: boolean][] = [
      [{}, true],
      [{ answers: ["Rome", "paris!"] }, true],
      [{ answers: ["Par"] }, false],
      [{ answers: ["Paris. The country"] }, true],
      [{ mode: "exact" }, true],
      [{ mode: "exact", answers: ["Paris, France"] }, false],
      [{ mode: "contains", answers: ["ari"] }, true],
      [{ mode: "contains", answers: ["Rome"] }, false],
      [{ mode: "token" }, true],
      [{ mode: "token", answers: ["Rome", "Paris"] }, true],
      [{ mode: "token", answers: ["Paris Rome"] }, false],
      [{ mode: "rank", rival: "Rome" }, true],
      [{ mode: "rank", answers: ["Rome"], rival: "Paris" }, false],
      [{ mode: "rank", answers: ["Rome", "Paris"], rival: "London" }, true],
      [{ mode: "rank", rival: "Paris" }, false],
    ];
    const probes = cases.map(([rest]) => probe(rest));
    const seen: number[][] = [];
    const { probes: results, passed, failed, skipped } = await runProbes(model, probes, {
      onProgress: (...progress) => seen.push(progress),
    });
    cases.forEach(([rest, passes], i) => {
      assert.equal(
        results[i].outcome,
        passes ? "passed" : "failed",
        `${JSON.stringify(rest)}: ${results[i].said}`,
      );
    });
    assert.deepEqual([passed, failed, skipped], [9, 6, 0]);
    assert.deepEqual(seen, [[15, 15]]);
    assert.equal(results[2].why, 'Expected "Par"; the model says "Paris"');
    assert.match(
      results[12].why!,
      /^Expected "Rome" to be likelier than "Paris"; the model has P\("Rome"\) = \de-5, P\("Paris"\) = 0\.998$/,
    );
    // In any company: 40 probes are two batches.
    const many = await runProbes(model, Array.from({ length: 40 }, (_, i) => probes[i % 15]));
    many.probes.forEach(({ outcome }, i) => assert.equal(outcome, results[i % 15].outcome));
  }),
);

Deno.test(
  "runProbes() compares probes without an answer with the unedited model, and skips them without one",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const prompts = ["The capital of France is", "Water boils when it is"];
    const probes = [
      ...prompts.map((prompt) => probe({ expect: "keep", prompt, answers: [], mode: "exact" })),
      ...prompts.map(keepProbe),
    ];
    const before = await readProbes(model, probes);
    assert.equal((await runProbes(model, probes)).skipped, 4);
    assert.equal((await runProbes(model, probes, { before })).passed, 4);
    const { left, ...factors } = noise(model, "layer.3.mlp.down", 4, 3);
    using _edit = applyDeltas(model, [{ ...factors, left: left.map((x) => 30 * x) }]);
    const { probes: results, failed } = await runProbes(model, probes, { before });
    assert.equal(failed, 4, JSON.stringify(results));
    assert.equal(results[0].expected, '"Paris" as before');
    assert.equal(results[2].expected, '" Paris" as before');
    assert.throws(
      () => requireHeld({ probes: results } as PackResult),
      /"The capital of France is" \(line 1\) does not hold/,
    );
  }),
);

Deno.test(
  "readProbes() refuses a prompt that does not fit, with its line",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const prompt = "Paris and ".repeat(80).trim();
    for (const mode of ["prefix", "token"] as const) {
      await assert.rejects(
        readProbes(model, [probe({}), probe({ line: 9, prompt, mode })]),
        /^InputError: The prompt of line 9 needs \d+ tokens with its answer; the model's context holds 128$/,
      );
    }
  }),
);

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: "",
  trimValues: false,
  parseTagValue: false,
});

Deno.test("escapeXml() is read back by a parser, whatever the text, in attributes and in content", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    const xml = `<?xml version="1.0"?><t a="${escapeXml(text)}">x${escapeXml(text)}</t>`;
    assert.equal(XMLValidator.validate(xml), true, xml);
  }));
  const nasty = `a<b>&amp;"c"'d'\n\t\u0000\u001b\ufffe]]>é日本`;
  const kept = nasty.replaceAll("\u0000", "\ufffd").replaceAll("\u001b", "\ufffd").replaceAll(
    "\ufffe",
    "\ufffd",
  );
  const entities = new XMLParser({
    ignoreAttributes: false,
    attributeNamePrefix: "",
    htmlEntities: true,
    trimValues: false,
  });
  const read = entities.parse(`<t a="${escapeXml(nasty)}">${escapeXml(nasty)}</t>`);
  assert.equal(read.t.a, kept);
  assert.equal(read.t["#text"], kept);
});

Deno.test("junitXml() is XML that holds every probe with its outcome", () => {
  const result = (rest: Partial<PackResult["probes"][0]>) => ({
    probe: probe({}),
    outcome: "passed" as const,
    expected: '"Paris"',
    said: '"Paris"',
    seconds: 0.25,
    ...rest,
  });
  const why = 'Expected "<Paris>" & more;\nthe model says "x"';
  const probes = [
    result({ probe: probe({ id: "a&b" }) }),
    result({ outcome: "failed", why, said: "]]>" }),
    result({ probe: probe({ expect: "keep", line: 0, answers: [] }), outcome: "skipped", why: "No patch" }),
  ];
  const xml = junitXml({ probes, passed: 1, failed: 1, skipped: 1 }, "facts.jsonl");
  assert.equal(XMLValidator.validate(xml), true);
  const { testsuites } = parser.parse(xml);
  assert.deepEqual(
    [testsuites.name, testsuites.tests, testsuites.failures, testsuites.skipped, testsuites.time],
    ["facts.jsonl", "3", "1", "1", "0.750"],
  );
  const [change, keep] = testsuites.testsuite;
  assert.deepEqual([change.name, change.tests, change.failures], ["must-change", "2", "1"]);
  assert.deepEqual([keep.name, keep.tests, keep.skipped], ["must-not-change", "1", "1"]);
  assert.equal(change.testcase[0].name, "line 1: a&b");
  assert.equal(change.testcase[0].failure, undefined);
  assert.equal(change.testcase[1].failure.message, why.replace("\n", "&#10;"));
  assert.match(change.testcase[1].failure["#text"], /prompt: The capital of France is/);
  assert.equal(keep.testcase.skipped.message, "No patch");
});
