/** Broken dataset files, each with what the user is told about it. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { readDataset } from "../../../evaluation/datasets/read.ts";
import { inFolder } from "../../engine/io/_data.ts";

/** A file that cannot be used: what is in it, and the error. */
type Broken = [what: string, name: string, content: string | Uint8Array, error: string | RegExp];

const ok = '{"prompt":"{} is in","subject":"A","target":"B"}';
const cf = (rest: object) =>
  JSON.stringify([{
    case_id: 1,
    requested_rewrite: {
      prompt: "{} is in",
      subject: "A",
      target_new: { str: "B" },
      target_true: { str: "C" },
    },
    ...rest,
  }]);
const zsre = (rest: object) =>
  JSON.stringify([{
    subject: "A",
    src: "Where is A?",
    answers: ["C"],
    alt: "B",
    rephrase: "A is where?",
    ...rest,
  }]);
const knowEdit = (ground_truth: unknown) =>
  JSON.stringify([{
    prompt: "A is in",
    subject: "A",
    target_new: "B",
    portability: { Reasoning: [{ prompt: "So A", ground_truth }] },
  }]);
const bytes = (...list: number[]) => new Uint8Array(list);
const text = (value: string) => new TextEncoder().encode(value);
const join2 = (a: Uint8Array, b: Uint8Array) => new Uint8Array([...a, ...b]);
const facts =
  "has the layout facts (prompt, subject, target), but its one record, in line 1, cannot be used: the record";

const FILES: Broken[] = [
  // Not text at all.
  ["nothing in it", "f.json", "", "f.json is empty"],
  ["white space only", "f.jsonl", " \n\t\r\n", "f.jsonl is empty"],
  ["a byte-order mark only", "f.json", bytes(0xef, 0xbb, 0xbf), "f.json is empty"],
  ["a zip archive", "f.json", "PK\x03\x04rest", "f.json is a zip archive"],
  ["gzip", "f.jsonl.gz", bytes(0x1f, 0x8b, 8, 0), "f.jsonl.gz is compressed with gzip"],
  ["a Parquet file", "f.parquet", "PAR1\x15", "f.parquet is a Parquet file"],
  ["binary data", "f.json", `[${ok}\0]`, `f.json is not text: byte ${ok.length + 1} is zero`],
  ["UTF-16", "f.csv", bytes(0xff, 0xfe, 0x70, 0), "f.csv is UTF-16 text"],
  [
    "Latin-1 in line 2",
    "f.jsonl",
    join2(text(`${ok}\n{"a":"`), bytes(0xe9, 0x22, 0x7d)),
    "f.jsonl line 2 is not valid UTF-8",
  ],
  ["prose", "f.json", "Dear reader,", "f.json holds neither JSON nor a table with a header line"],
  ["a YAML file", "f.yaml", "- prompt: x\n", "f.yaml holds neither JSON nor a table with a header line"],
  [
    "a Git LFS pointer",
    "f.json",
    "version https://git-lfs\n",
    "f.json holds neither JSON nor a table with a header line",
  ],

  // Broken JSON.
  ["a comma too many", "f.json", `[\n${ok},\n]`, "f.json line 3 column 1: expected a value, got ']'"],
  ["a comma missing", "f.json", `[\n${ok}\n${ok}]`, "f.json line 3 column 1: expected ',' or ']', got '{'"],
  [
    "a colon missing",
    "f.json",
    '[{"prompt" "x"}]',
    "f.json line 1 column 12: expected ':' after a key, got '\"'",
  ],
  [
    "a key without quotes",
    "f.json",
    '[\n  {prompt: "x"}]',
    "f.json line 2 column 4: expected a key in double quotes, got 'p'",
  ],
  [
    "single quotes",
    "f.json",
    "[{'prompt': 1}]",
    "f.json line 1 column 3: expected a key in double quotes, got '''",
  ],
  ["Python's None", "f.json", '[{"prompt": None}]', "f.json line 1 column 13: expected a value, got 'N'"],
  ["NaN", "f.json", '[{"p": NaN}]', "f.json line 1 column 8: expected a value, got 'N'"],
  [
    "a line break in a text",
    "f.json",
    '[{"prompt":"a\nb"}]',
    "f.json line 1 column 14: expected '\"' at the end of a text, got a line break",
  ],
  ["a bad escape", "f.json", '["é\\x"]', "f.json line 1 column 5: expected an escape after '\\', got 'x'"],
  [
    "a bad \\u",
    "f.json",
    '["\\u12g4"]',
    /line 1 column 7: expected four hexadecimal digits after '\\u', got 'g'/,
  ],
  [
    "something after the array",
    "f.json",
    `[${ok}]\n]`,
    "f.json line 2 column 1: expected the end of the file, got ']'",
  ],
  [
    "records with commas but no array",
    "f.json",
    `${ok},\n${ok}`,
    /line 1 column 49: expected the end or another record, got ','/,
  ],
  [
    "a file cut off in a text",
    "f.json",
    `[\n${ok},\n{"prompt":"It`,
    "f.json ends too early, in line 3: expected '\"' at the end of a text",
  ],
  [
    "a file cut off between records",
    "f.json",
    `[\n${ok},\n`,
    "f.json ends too early, in line 3: expected a value",
  ],
  [
    "one bad line in JSONL",
    "f.jsonl",
    `${ok}\n${ok.slice(0, -1)}]\n${ok}`,
    "f.jsonl line 2 column 48: expected ',' or '}', got ']'",
  ],
  [
    "a JSONL file cut off",
    "f.jsonl",
    `${ok}\n{"prompt":`,
    "f.jsonl ends too early, in line 2: expected a value",
  ],
  ["absurd nesting", "f.json", "[".repeat(100_000), "f.json line 1 nests more than 64 arrays and objects"],
  [
    "absurd nesting in a record",
    "f.json",
    `[\n{"a":${'{"a":'.repeat(80)}1`,
    "f.json line 2 nests more than 64 arrays and objects",
  ],

  // JSON, but no data set.
  ["an empty list", "f.json", "[]", "f.json holds no record"],
  [
    "a list of texts",
    "f.json",
    '["a",\n"b"]',
    "In f.json none of its 2 records can be used: the record is not an object",
  ],
  [
    "a list of lists",
    "f.json",
    "[[1]]",
    "In f.json its one record, in line 1, cannot be used: the record is not an object",
  ],
  [
    "no known layout",
    "f.json",
    '[{"question":"x","answer":"y"}]',
    /^f\.json is in no known layout: its records have "question", "answer", and none of the keys of any$/,
  ],
  [
    "a layout that is nearly known",
    "f.json",
    '[{"alt":"b","subject":"A","rephrase":"c","loc":"q"}]',
    /its records have "alt", .*; nearest is zsRE \(MEND\), which also has "src", "answers", "loc_ans"$/,
  ],
  ["an empty record", "f.json", "[{}]", /no known layout: its records are empty/],
  [
    "no new targets",
    "f.json",
    '[{"known_id":0,"subject":"A","attribute":"B","template":"{} is","prediction":" B","prompt":"A is"}]',
    /has the layout known facts .* no new target/,
  ],
  ["an object whose list is empty", "f.json", '{"K_F":[],"K_R":[]}', 'f.json holds no record in "K_F"'],
  [
    "an LRE relation",
    "f.json",
    '{"name":"x","prompt_templates":["{} is"],"samples":[{"subject":"A","object":"B"}]}',
    /LRE relation, but its one record, .* no new target/,
  ],

  // Records that cannot be used.
  ["the subject missing", "f.json", '{"prompt":"A is in","target":"B"}', `f.json ${facts} has no "subject"`],
  [
    "the subject not in the prompt",
    "f.json",
    '{"prompt":"It is in","subject":"A","target":"B"}',
    `f.json ${facts} has a subject that is not in its prompt: "A" in "It is in"`,
  ],
  [
    "an empty target",
    "f.json",
    '{"prompt":"{} is in","subject":"A","target":" "}',
    `f.json ${facts} has a "target" that is empty`,
  ],
  [
    "a number as target",
    "f.json",
    '{"prompt":"{} is in","subject":"A","target":5}',
    `f.json ${facts} has a "target" that is not a text`,
  ],
  [
    "two slots",
    "f.json",
    '{"prompt":"{} is {}","subject":"A","target":"B"}',
    `f.json ${facts} has 2 "{}" in its prompt; exactly one is allowed`,
  ],
  [
    "the same key twice",
    "f.json",
    '{"prompt":"{} is","subject":"A","target":"B","target":"C"}',
    /the key "target" appears twice/,
  ],
  [
    "half a character",
    "f.json",
    '{"prompt":"{} is","subject":"A","target":"\\ud800"}',
    `f.json ${facts} has a "target" that holds half a character (a lone surrogate)`,
  ],
  [
    "a text of a megabyte",
    "f.json",
    `{"prompt":"{} is","subject":"A","target":"${"x".repeat(2 ** 20)}"}`,
    `f.json ${facts} has a "target" that is longer than 100000 characters`,
  ],
  [
    "a record of 17 MB",
    "f.jsonl",
    `${"[".repeat(0)}{"prompt":"{} is","subject":"A","target":"${"x".repeat(17e6)}"}`,
    /the record has 17000\d+ bytes; at most 16777216 are read/i,
  ],
  [
    "neighbours without their answer",
    "f.json",
    '{"prompt":"{} is","subject":"A","target":"B","neighbours":["C is"]}',
    `f.json ${facts} has "neighbours" but no "true", which is their answer`,
  ],
  [
    "locality without an answer",
    "f.csv",
    "prompt,subject,target,locality\n{} is,A,B,C is\n",
    /in line 2, cannot be used: the record has a "locality" without an answer: "C is"/,
  ],
  [
    "CounterFact without the true target",
    "f.json",
    cf({ requested_rewrite: { prompt: "{}", subject: "A", target_new: { str: "B" } } }),
    /CounterFact \(ROME\), .* the record has no "requested_rewrite.target_true"$/,
  ],
  [
    "CounterFact with a text for a list",
    "f.json",
    cf({ paraphrase_prompts: "A lies in" }),
    /the record has a "paraphrase_prompts" that is not a list$/,
  ],
  [
    "CounterFact with a number in a list",
    "f.json",
    cf({ neighborhood_prompts: ["D is in", 4] }),
    /the record has a "neighborhood_prompts\.1" that is not a text$/,
  ],
  [
    "zsRE with alt empty everywhere",
    "f.json",
    zsre({ alt: "" }),
    /zsRE \(MEND\), .* the record has an empty alt, the target$/,
  ],
  [
    "zsRE with answers of a wrong type",
    "f.json",
    zsre({ answers: { a: 1 } }),
    /a "answers" that is neither a text nor a list of texts$/,
  ],
  [
    "KnowEdit with a ground_truth nested too deeply",
    "f.json",
    knowEdit([[["x"]]]),
    /a "portability\.Reasoning" that is no list of prompts with a ground_truth$/,
  ],
  [
    "KnowEdit with a ground_truth of a wrong type",
    "f.json",
    knowEdit({ x: 1 }),
    /a "portability\.Reasoning" that is no list of prompts with a ground_truth$/,
  ],
  [
    "MQuAKE without questions",
    "f.json",
    '[{"requested_rewrite":[{"prompt":"{} is","subject":"A","target_new":{"str":"B"}}],"questions":[],"new_answer":"x"}]',
    /MQuAKE, .* a "questions" that is empty$/,
  ],
  [
    "different reasons",
    "f.json",
    `[\n{"prompt":"{} is"},\n{"prompt":"{} is","subject":"A"}]`,
    /none of its 2 records can be used; the one in line 2, for instance: the record has no "subject"$/,
  ],

  // Tables.
  ["no header", "f.csv", "The A is in,A,B\n", "f.csv line 1 does not name the columns"],
  ["a header only", "f.csv", "prompt,subject,target\n", "f.csv holds no record"],
  [
    "a column twice",
    "f.csv",
    "prompt,subject,prompt\na,b,c\n",
    'f.csv line 1 names the column "prompt" twice',
  ],
  [
    "a quote that is never closed",
    "f.csv",
    'prompt,subject,target\n{} is,A,B\n"{} is,A,B\n',
    /^f\.csv line \d: a quote is opened and never closed$/,
  ],
  [
    "a quote inside a cell",
    "f.csv",
    'prompt,subject,target\n{} is "in",A,B\n',
    "f.csv line 2: a quote stands inside a cell; quotes go around the whole cell and are doubled in it",
  ],
  [
    "a comma too many in every row",
    "f.csv",
    "prompt,subject,target\n{} is,A,B,\n",
    /its one record, in line 2, cannot be used: the row has 4 columns; the header has 3$/,
  ],
  [
    "a cell too few",
    "f.tsv",
    "prompt\tsubject\ttarget\n{} is\tA\n",
    /in line 2, cannot be used: the row has 2 columns; the header has 3$/,
  ],
  ["JSON called CSV", "f.csv", `[${ok}]`, "f.csv line 1 does not name the columns"],
];

for (const [what, name, content, expected] of FILES) {
  Deno.test(`a file with ${what} is refused clearly`, () =>
    inFolder(async (folder) => {
      await Deno.writeFile(join(folder, name), typeof content === "string" ? text(content) : content);
      await refused(join(folder, name), expected);
    }));
}

async function refused(path: string, expected: string | RegExp): Promise<void> {
  await assert.rejects(readDataset(path), (error: Error & { hint?: string }) => {
    assert.equal(error.name, "InputError", error.stack);
    if (typeof expected === "string") assert.equal(error.message, expected);
    else assert.match(error.message, expected);
    for (const sentence of [error.message, error.hint ?? "x"]) {
      assert.match(sentence, /[^.]$/);
      assert.doesNotMatch(sentence, /undefined|\[object|NaN\b(?!')|\n/);
      assert.ok(sentence.length < 600, sentence);
    }
    return true;
  });
}

Deno.test("a folder, a missing file and a file of more than 2 GB are refused clearly", () =>
  inFolder(async (folder) => {
    await refused(folder, `Cannot read ${folder}: it is a folder`);
    await refused(
      join(folder, "none.json"),
      `Cannot read ${join(folder, "none.json")}: there is no such file`,
    );
    const huge = join(folder, "huge.json");
    await Deno.writeFile(huge, text("[]"));
    // Sparse: it takes no room.
    await Deno.truncate(huge, 2 ** 31 + 1);
    await refused(huge, `Cannot read ${huge}: it has ${2 ** 31 + 1} bytes; at most ${2 ** 31} are read`);
  }));

Deno.test("bad records among good ones are left out with line and reason, and do not stop anything", () =>
  inFolder(async (folder) => {
    const path = join(folder, "f.jsonl");
    const lines = [ok, "7", '{"prompt":"{} is"}', ok.replace('"A"', "[]"), ok.replace('"B"', '"D"')];
    await Deno.writeTextFile(path, lines.join("\n"));
    const { cases, unusable, total } = await readDataset(path);
    assert.equal(total, 5);
    assert.deepEqual(cases.map(({ line, index }) => [line, index]), [[1, 0], [5, 4]]);
    assert.deepEqual(unusable, [
      { index: 1, line: 2, why: "The record is not an object" },
      { index: 2, line: 3, why: 'The record has no "subject"' },
      { index: 3, line: 4, why: 'The record has a "subject" that is not a text' },
    ]);
  }));
