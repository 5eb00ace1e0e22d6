/**
 * Hostile files: whatever the bytes are, the reader returns or throws InputError. And the JSON scanner against
 * JSON.parse, which knows the same grammar.
 */
import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { memberSpans, recordSpans } from "../../../evaluation/datasets/json_spans.ts";
import { parseDataset } from "../../../evaluation/datasets/read.ts";
import { InputError } from "../../../engine/io/errors.ts";
import { parse } from "./_files.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);

/** Runs a reader; anything but a result or an InputError fails the test. */
function survives(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    assert.ok(error instanceof InputError, error instanceof Error ? error.stack : String(error));
    assert.ok(error.message.length < 2000, "the message is as long as the input");
  }
}

/** Keys of all layouts, so that random records get past recognition. */
const KEYS =
  ("prompt subject target target_new true ground_truth rephrase rephrase_prompt neighbours locality aliases " +
    "portability case_id requested_rewrite questions new_answer new_single_hops paraphrase_prompts str target_true " +
    "neighborhood_prompts generation_prompts two_hop src alt answers loc loc_ans input output alternatives concept text " +
    "labels ent pos neg K_F K_R question edit Forgetfulness test_queries condition_queries subject_id target_ids " +
    "relation value Reasoning samples prompt_templates __proto__ constructor").split(" ");

const record = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom("A", "{}", "A is in", "{} is in", "", " ", "B", "İ", "\ud800"),
    fc.integer(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom(...KEYS), tie("value"), { maxKeys: 6 }),
  ),
})).value;

Deno.test("random records with the keys of known layouts never crash the reader", () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 5 }), record, (list, object) => {
      for (const value of [list, object]) {
        for (const target of ["alt", "answer"] as const) {
          survives(() => parse(value, { target }));
        }
      }
    }),
    { numRuns: 3000 },
  );
});

/** Small sound records of several layouts, to be damaged. */
const SOUND = [
  { prompt: "{} is in", subject: "A", target: "B", true: "C", locality: ["D is => E"], aliases: "Ä | a" },
  {
    requested_rewrite: { prompt: "{} is", subject: "A", target_new: { str: "B" }, target_true: { str: "C" } },
  },
  { src: "Is A?", subject: "A", answers: ["x"], alt: "y", loc: "nq question: z", loc_ans: "w" },
  {
    edit: { prompt: "The b of A is C.", subject_id: "Q1", target_id: "Q2", relation: "B" },
    Forgetfulness: [{
      test_queries: [{
        prompt: "The b of A is",
        answers: [{ value: "C", aliases: [] }],
        subject_id: "Q1",
        relation: "B",
        target_ids: ["Q2"],
      }],
    }],
  },
];

Deno.test("sound files with a byte changed, cut out or put in never crash the reader", () => {
  const files = [
    JSON.stringify(SOUND, null, 1),
    SOUND.map((one) => JSON.stringify(one)).join("\n"),
    ...SOUND.map((one) => JSON.stringify([one])),
    'prompt,subject,target,locality\n"{} ""is""",A,B,"C => D"\n{} is,b,c,\n',
  ].map(utf8);
  const names = fc.constantFrom("f.json", "f.jsonl", "f.csv", "f.tsv", "f");
  fc.assert(
    fc.property(
      fc.constantFrom(...files),
      fc.nat(),
      fc.nat(3),
      fc.uint8Array({ maxLength: 3 }),
      names,
      (file, at, cut, put, name) => {
        const start = at % file.length;
        const damaged = new Uint8Array([...file.subarray(0, start), ...put, ...file.subarray(start + cut)]);
        survives(() => parseDataset(name, damaged));
        survives(() => parseDataset(name, file.subarray(0, start)));
      },
    ),
    { numRuns: 3000 },
  );
});

Deno.test("random bytes and random text never crash the reader", () => {
  const names = fc.constantFrom("f.json", "f.jsonl", "f.csv", "f.tsv", "f");
  const jsonish = fc.array(
    fc.constantFrom(...'[]{}",:\\ \n\r\t0-1.eEtruefalsn', '"prompt"', '"subject"', "é"),
    { maxLength: 40 },
  );
  const content = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.string({ unit: "binary" }).map(utf8),
    jsonish.map((parts) => utf8(parts.join(""))),
    jsonish.map((parts) => utf8(`prompt,subject,target\n${parts.join("")}`)),
  );
  fc.assert(fc.property(content, names, (bytes, name) => survives(() => parseDataset(name, bytes))), {
    numRuns: 5000,
  });
});

Deno.test("the scanner accepts exactly the arrays that JSON.parse accepts, and finds their elements", () => {
  const pieces = fc.constantFrom(
    ...'[]{}",:\\/ \n\r\t0123-+.eEu',
    "true",
    "false",
    "null",
    '"a"',
    '"a":',
    "1,",
    "\\u00e9",
    "\x7f",
    "é",
  );
  const texts = fc.oneof(
    fc.array(pieces, { maxLength: 12 }).map((parts) => `[${parts.join("")}]`),
    fc.json({ maxDepth: 5 }).map((json) => `[${json}]`),
    fc.array(fc.json({ maxDepth: 3 })).map((list) => `[${list.join(" ,\n")}\n]`),
  );
  let sound = 0;
  fc.assert(
    fc.property(texts, (text) => {
      let expected: unknown[] | undefined;
      try {
        expected = JSON.parse(text);
      } catch {
        assert.throws(() => recordSpans(utf8(text), "x"), InputError);
        return;
      }
      sound++;
      const bytes = utf8(text);
      const { kind, spans } = recordSpans(bytes, "x");
      assert.equal(kind, "array");
      const sliced = spans.map(({ start, end }) => new TextDecoder().decode(bytes.subarray(start, end)));
      assert.deepEqual(sliced.map((part) => JSON.parse(part)), expected);
      const lines = spans.map(({ start }) =>
        new TextDecoder().decode(bytes.subarray(0, start)).split("\n").length
      );
      assert.deepEqual(spans.map(({ line }) => line), lines);
    }),
    { numRuns: 5000 },
  );
  assert.ok(sound > 500, `only ${sound} were sound JSON`);
});

Deno.test("memberSpans finds the elements of one member, whatever else the object holds", () => {
  const object = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }));
  fc.assert(fc.property(object, fc.array(fc.jsonValue({ maxDepth: 2 })), object, (before, list, after) => {
    const { wanted: _1, ...first } = before, { wanted: _2, ...last } = after;
    const bytes = utf8(JSON.stringify({ ...first, wanted: list, ...last }, null, 1));
    const spans = memberSpans(bytes, "wanted")!;
    const found = spans.map(({ start, end }) =>
      JSON.parse(new TextDecoder().decode(bytes.subarray(start, end)))
    );
    assert.equal(JSON.stringify(found), JSON.stringify(list));
    assert.equal(memberSpans(bytes, "there is no such key"), undefined);
  }));
});
