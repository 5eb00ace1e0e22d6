import assert from "node:assert/strict";
import type { Tokenizer } from "../../engine/io/tokenizer.ts";
import { InputError } from "../../engine/io/errors.ts";
import {
  type EditRequest,
  fill,
  requireRoom,
  spaced,
  tokenisePrompt,
  tokeniseTarget,
  validateRequest,
} from "../../editors/requests.ts";
import { testWith } from "../engine/io/_data.ts";
import { ATLAS, REQUESTS, TOKENIZERS } from "./_prompts.ts";

/** An ASCII context, as the editors put before prompts. */
const CONTEXT = "The first of the. ";

/** The rule of AlphaEdit and EasyEdit: the last token of the text up to the subject's end. */
function byPrefix(tokenizer: Tokenizer, { text, end }: { text: string; end: number }): number {
  return tokenizer.encode(text.slice(0, end)).length - 1;
}

for (const { name, path, needs, open } of TOKENIZERS) {
  testWith(
    path,
    needs,
    `tokenisePrompt() agrees with the full-prefix rule on all data sets with ${name}'s tokens`,
    async (path) => {
      const tokenizer = await open(path);
      const disagreements: string[] = [];
      let prompts = 0;
      for (const [set, requests] of REQUESTS) {
        for (const [i, request] of requests.entries()) {
          const { prompt, subject } = validateRequest(request);
          // Every tenth one after a context too: what matters is where the subject begins.
          for (const context of i % 10 ? [""] : ["", CONTEXT]) {
            const filled = fill(prompt, subject, context);
            const { subjectLast } = tokenisePrompt(tokenizer, filled);
            prompts++;
            if (subjectLast !== byPrefix(tokenizer, filled)) disagreements.push(`${set}: ${filled.text}`);
          }
        }
      }
      assert.deepEqual(disagreements, [], `of ${prompts} prompts`);
      assert.ok(prompts > 1000);
    },
  );

  testWith(
    path,
    needs,
    `tokeniseTarget() cuts the target out of the whole text with ${name}'s tokens`,
    async (path) => {
      const tokenizer = await open(path);
      const byteLevel = name !== "stories260k";
      for (const requests of REQUESTS.values()) {
        for (const request of requests.filter((_, i) => i % 5 === 0)) {
          const { prompt, subject, target } = validateRequest(request);
          const { text } = fill(prompt, subject);
          const ids = tokenizer.encode(text);
          const got = tokeniseTarget(tokenizer, { text, ids }, target);
          assert.deepEqual([...ids, ...got], tokenizer.encode(text + target), text + target);
          // For byte-level BPE the string path and the id path are one (guide section 1.1).
          if (byteLevel) assert.deepEqual(got, tokenizer.encode(target, { special: false }));
        }
      }
    },
  );
}

/** Subjects whose end merges with what follows, or begins within a token. */
const MERGES: [tokenizer: string, prompt: string, subject: string, token: string, prefixRule: string][] = [
  // The prefix "People in Engl" has three tokens, the text only two up to there: the rule points behind.
  ["GPT-2", "People in {}ish towns", "Engl", " English", " towns"],
  ["GPT-2", "The {}y lies", "Ital", " Italy", " Italy"],
  ["GPT-2", "{}é is", "Beyonc", "cé", "cé"],
  ["atlas", "in {}bridge lies", "Cam", " Camb", " Camb"],
  ["atlas", "The {}y lies", "Ital", " Italy", " Italy"],
  // The last of the tokens that share the character's bytes.
  ["GPT-2", "Say {} now", "😀", "<0x80>", "<0x80>"],
  ["stories260k", "{} is", "Paris", "is", "is"],
];

for (const { name, path, needs, open } of TOKENIZERS) {
  const cases = MERGES.filter(([tokenizer]) => tokenizer === name);
  if (cases.length === 0) continue;
  testWith(
    path,
    needs,
    `tokenisePrompt() gives the token that holds the subject's last character with ${name}'s tokens`,
    async (path) => {
      const tokenizer = await open(path);
      for (const [, prompt, subject, token, other] of cases) {
        const filled = fill(prompt, subject);
        const { ids, subjectLast } = tokenisePrompt(tokenizer, filled);
        assert.equal(tokenizer.token(ids[subjectLast]), token, filled.text);
        assert.equal(tokenizer.token(ids[byPrefix(tokenizer, filled)]), other, filled.text);
        const [from, to] = tokenizer.encodeWithOffsets(filled.text).spans[subjectLast];
        assert.ok(from < filled.end && to >= filled.end, `${filled.text}: [${from}, ${to})`);
      }
    },
  );
}

const atlas = () => TOKENIZERS[0].open(ATLAS);

Deno.test("tokeniseTarget() encodes a target alone when it merges with the prompt's end", async () => {
  const tokenizer = await atlas();
  const prompt = { text: "It is in Ital", ids: tokenizer.encode("It is in Ital") };
  const whole = tokenizer.encode("It is in Italy");
  assert.notDeepEqual(whole.slice(0, prompt.ids.length), prompt.ids, "the boundary merges");
  assert.deepEqual(tokeniseTarget(tokenizer, prompt, "y"), tokenizer.encode("y"));
});

Deno.test("tokeniseTarget() refuses a target without tokens when it is asked for one", async () => {
  const tokenizer = await atlas();
  const prompt = { text: "It is", ids: tokenizer.encode("It is") };
  assert.throws(() => tokeniseTarget(tokenizer, prompt, ""), /^InputError: The target "" has no token$/);
});

const REQUEST: EditRequest = { prompt: "{} is in", subject: "Paris", target: "Italy" };

Deno.test("validateRequest() puts the slot at the subject's last mention when a prompt is plain", () => {
  const plain = { ...REQUEST, prompt: "Paris, said Paris is in" };
  assert.equal(validateRequest(plain).prompt, "Paris, said {} is in");
  const dollar = { ...REQUEST, prompt: "A$$' is in", subject: "A$$'" };
  const { prompt, subject } = validateRequest(dollar);
  assert.equal(fill(prompt, subject).text, dollar.prompt);
});

Deno.test("validateRequest() tidies spaces when subject, prompt and targets come with or without them", () => {
  const got = validateRequest({ prompt: "in Paris is  ", subject: " Paris ", target: "Italy", true: " x" });
  assert.deepEqual(got, { prompt: "in {} is", subject: "Paris", target: " Italy", true: " x" });
  assert.deepEqual(validateRequest(got), got, "a second time");
  assert.equal(validateRequest({ ...REQUEST, target: "\nItaly" }).target, "\nItaly");
  assert.equal(spaced("x"), " x");
});

Deno.test("validateRequest() names request and field when one is bad", () => {
  const cases: [Partial<EditRequest>, RegExp][] = [
    [{ prompt: " " }, /^The request has an empty prompt$/],
    [{ subject: "" }, /^The request has an empty subject$/],
    [{ target: "\t" }, /^The request has an empty target$/],
    [{ true: "" }, /^The request has an empty true$/],
    [{ prompt: "{} is {}" }, /^The request has 2 "\{\}" in its prompt; exactly one is allowed$/],
    [{ prompt: "he is in" }, /^The request has a subject that is not in its prompt: "Paris" in "he is in"$/],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => validateRequest({ ...REQUEST, ...change }), (error) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, message);
      return true;
    });
  }
  assert.throws(() => validateRequest({ ...REQUEST, subject: "" }, "Request 3"), /: Request 3 has an empty/);
});

Deno.test("fill() finds the subject's range when context and subject hold braces", () => {
  const { text, start, end } = fill("in {} is", "a{}b", "x {} y. ");
  assert.equal(text, "x {} y. in a{}b is");
  assert.equal(text.slice(start, end), "a{}b");
});

Deno.test("requireRoom() refuses when there are more tokens than positions", () => {
  requireRoom(8, { maxPositions: 8 }, "It");
  assert.throws(
    () => requireRoom(9, { maxPositions: 8 }, "It"),
    /^InputError: It has 9 tokens; the model's context holds 8$/,
  );
});
