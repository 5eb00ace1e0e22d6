import assert from "node:assert/strict";
import { join } from "node:path";
import { openCheckpoint } from "../../../engine/io/checkpoint.ts";
import { InputError } from "../../../engine/io/errors.ts";
import type { Tokenizer } from "../../../engine/io/tokenizer.ts";
import { makeTokenizer } from "../../../engine/io/tokenizer.ts";
import { readTokenizer } from "../../../engine/io/tokenizer_files.ts";
import { byteLevelBpe } from "../../../engine/io/tokenizer_json.ts";
import { fixture, fixtureJson, GPT2, inFolder, NEEDS, SMOLLM2, STORIES, testWith } from "./_data.ts";

interface Case {
  text: string;
  ids: number[];
  spans?: [number, number][];
  decoded?: string;
}

async function ofGguf(path: string): Promise<Tokenizer> {
  const checkpoint = await openCheckpoint(path);
  checkpoint.close();
  return await checkpoint.tokenizer();
}

/** The text under each token. */
function parts(tokenizer: Tokenizer, text: string): string[] {
  return tokenizer.encodeWithOffsets(text, { special: false }).spans.map(([start, end]) =>
    text.slice(start, end)
  );
}

for (
  const [name, addsBos] of [
    ["tiny-llama-spm.gguf", true],
    ["tiny-llama-bpe.gguf", true],
    ["tiny-qwen2.gguf", false],
    ["tiny-gpt2.gguf", false],
  ] as const
) {
  Deno.test(`encode() agrees with the Rust tokenizer when the vocabulary is from ${name}`, async () => {
    const tokenizer = await ofGguf(fixture(name));
    const cases: Case[] = fixtureJson("tiny-gguf.json")[name].cases;
    assert(cases.length > 200);
    for (const { text, ids } of cases) {
      assert.deepEqual(tokenizer.encode(text, { special: false }), ids, JSON.stringify(text));
      const withBos = addsBos ? [tokenizer.bos!, ...ids] : ids;
      assert.deepEqual(tokenizer.encode(text), withBos);
    }
    assert.equal(tokenizer.addsBos, addsBos);
  });

  Deno.test(`encodeWithOffsets() covers the text in order when the vocabulary is from ${name}`, async () => {
    const tokenizer = await ofGguf(fixture(name));
    for (const { text } of fixtureJson("tiny-gguf.json")[name].cases as Case[]) {
      const { ids, spans } = tokenizer.encodeWithOffsets(text, { special: false });
      assert.deepEqual(ids, tokenizer.encode(text, { special: false }));
      let covered = 0;
      for (const [start, end] of spans) {
        assert(start <= end && start <= covered, `${JSON.stringify(text)} ${JSON.stringify(spans)}`);
        covered = Math.max(covered, end);
      }
      assert.equal(covered, text.length, JSON.stringify(text));
    }
  });

  Deno.test(`toJSON() makes the same tokenizer again when the vocabulary is from ${name}`, async () => {
    const tokenizer = await ofGguf(fixture(name));
    await inFolder(async (folder) => {
      await Deno.writeTextFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
      const again = await readTokenizer(folder);
      for (const { text } of (fixtureJson("tiny-gguf.json")[name].cases as Case[]).slice(0, 100)) {
        assert.deepEqual(again.encode(text), tokenizer.encode(text));
      }
    });
  });
}

testWith(
  SMOLLM2,
  NEEDS.smollm2,
  "SmolLM2's tokenizer gives transformers' ids, offsets and texts",
  async (path) => {
    const tokenizer = await ofGguf(path);
    const { cases } = fixtureJson("smollm2-tokens.json") as { cases: Case[] };
    assert(cases.length > 300);
    for (const { text, ids, spans, decoded } of cases) {
      const actual = tokenizer.encodeWithOffsets(text, { special: false });
      assert.deepEqual(actual.ids, ids, JSON.stringify(text));
      if (spans !== undefined) assert.deepEqual(actual.spans, spans, JSON.stringify(text));
      assert.equal(tokenizer.decode(ids), decoded);
    }
    assert.deepEqual([tokenizer.vocabSize, tokenizer.bos, tokenizer.eos, tokenizer.addsBos], [
      49152,
      1,
      2,
      false,
    ]);
    assert.equal(tokenizer.token(tokenizer.encode(" Paris")[0]), " Paris");
  },
);

testWith(GPT2, NEEDS.gpt2, "GPT-2's vocab.json and merges.txt give the reference ids", async (folder) => {
  const tokenizer = await readTokenizer(folder);
  const reference = JSON.parse(await Deno.readTextFile(join(folder, "tokenizer-reference.json")));
  for (const { text, ids } of reference.cases as Case[]) {
    // The reference does not recognise special tokens in a text; Hugging Face's tokenizers do, and so do we.
    const expected = text === "<|endoftext|> is text here" ? [50256, 318, 2420, 994] : ids;
    assert.deepEqual(tokenizer.encode(text), expected, text);
    assert.equal(tokenizer.decode(expected), text);
  }
  assert.deepEqual([tokenizer.vocabSize, tokenizer.bos, tokenizer.addsBos], [50257, 50256, false]);
  assert.deepEqual(parts(tokenizer, "The Eiffel Tower"), ["The", " E", "iff", "el", " Tower"]);
  assert.deepEqual(parts(tokenizer, "a 🤖."), ["a", " 🤖", "🤖", "🤖", "."]);
});

testWith(STORIES, NEEDS.stories, "stories260k's tokenizer.json gives the reference ids", async (folder) => {
  const tokenizer = await readTokenizer(folder);
  const reference = JSON.parse(await Deno.readTextFile(join(folder, "reference.json")));
  for (const { text, ids, greedy_ids: greedy, greedy_text: full } of reference.prompts) {
    assert.deepEqual(tokenizer.encode(text), ids);
    const { ids: same, spans } = tokenizer.encodeWithOffsets(text);
    assert.deepEqual(same, ids);
    assert.deepEqual(spans[0], [0, 0]);
    assert.equal(spans.at(-1)![1], text.length);
    if (full !== undefined) assert.equal(tokenizer.decode([...ids, ...greedy], { skipSpecial: true }), full);
  }
  assert.deepEqual([tokenizer.bos, tokenizer.eos, tokenizer.addsBos], [1, 2, true]);
});

Deno.test("encodeWithOffsets() gives no place to the space that SentencePiece prepends", async () => {
  const tokenizer = await ofGguf(fixture("tiny-llama-spm.gguf"));
  assert.equal(parts(tokenizer, "Lily said").join(""), "Lily said");
  assert.equal(tokenizer.encodeWithOffsets("Lily").spans[1][0], 0);
  assert.equal(parts(tokenizer, "  two").join(""), "  two");
  assert.equal(parts(tokenizer, "a<s>b").join(""), "a<s>b");
  assert.equal(parts(tokenizer, "▁x").join(""), "▁x");
});

Deno.test("encodeWithOffsets() maps back through NFC when the tokenizer normalises", async () => {
  const tokenizer = await ofGguf(fixture("tiny-qwen2.gguf"));
  const text = "cafe\u0301 a\u030a \u1112\u1161\u11ab x";
  const { spans } = tokenizer.encodeWithOffsets(text);
  const byStart = new Map(spans.map(([start, end]) => [start, end]));
  const pieces = [...byStart].map(([start, end]) => text.slice(start, end));
  // The composed é is two bytes; both tokens span the letter and its accent.
  assert(pieces.some((piece) => piece.endsWith("e\u0301")), JSON.stringify(pieces));
  assert(pieces.some((piece) => piece.endsWith("\u1112\u1161\u11ab")), JSON.stringify(pieces));
  assert.equal(spans.at(-1)![1], text.length);
});

Deno.test("encodeWithOffsets() survives lone surrogates", async () => {
  const tokenizer = await ofGguf(fixture("tiny-gpt2.gguf"));
  const text = "a\ud800b\udc00";
  const { spans } = tokenizer.encodeWithOffsets(text);
  assert.equal(spans.at(-1)![1], text.length);
});

Deno.test("token() shows bytes that are no whole character as hexadecimal", async () => {
  const tokenizer = await ofGguf(fixture("tiny-gpt2.gguf"));
  const [id] = tokenizer.encode("🤖");
  assert.match(tokenizer.token(id), /^(<0x[0-9A-F]{2}>)+$/);
  assert.equal(tokenizer.token(0), "<|endoftext|>");
  assert.equal(tokenizer.token(10 ** 6), "<id 1000000>");
  const spm = await ofGguf(fixture("tiny-llama-spm.gguf"));
  assert.deepEqual([0x41, 0xc3].map((byte) => spm.token(3 + byte)), ["A", "<0xC3>"]);
});

Deno.test("decode() leaves out ids without a token, and special tokens on request", async () => {
  const tokenizer = await ofGguf(fixture("tiny-llama-spm.gguf"));
  const ids = tokenizer.encode("One day");
  assert.equal(tokenizer.decode([...ids, 99999], { skipSpecial: true }), "One day");
  assert.equal(tokenizer.decode([]), "");
  assert.equal(tokenizer.decode([99999]), "");
});

Deno.test("makeTokenizer() lets add_bos_token override the post-processor", () => {
  const vocab = { "a": 0, "<s>": 1 };
  const addedTokens = [{ id: 1, content: "<s>", special: true }];
  const plain = byteLevelBpe({ vocab, merges: [], addedTokens });
  const withBos = byteLevelBpe({ vocab, merges: [], addedTokens, bos: { id: 1, content: "<s>" } });
  const encode = (json: typeof plain, addBos?: boolean) =>
    makeTokenizer({ json, source: "x", bos: "<s>", addBos }).encode("aa");
  assert.deepEqual(encode(plain), [0, 0]);
  assert.deepEqual(encode(plain, true), [1, 0, 0]);
  assert.deepEqual(encode(withBos), [1, 0, 0]);
  assert.deepEqual(encode(withBos, true), [1, 0, 0]);
  assert.deepEqual(encode(withBos, false), [0, 0]);
});

Deno.test("readTokenizer() says what is missing or wrong", async () => {
  await inFolder(async (folder) => {
    const refuses = async (message: RegExp) => {
      await assert.rejects(
        readTokenizer(folder),
        (error) => error instanceof InputError && message.test(error.message),
      );
    };
    await refuses(/^No tokenizer in .*: expected tokenizer\.json, or vocab\.json and merges\.txt$/);
    await Deno.writeTextFile(join(folder, "vocab.json"), '{"a":0,"b":1,"ab":2}');
    await Deno.writeTextFile(join(folder, "merges.txt"), "#version: 0.2\na b\nab\n");
    await refuses(/merges\.txt of .*: line 3 is not a pair of tokens$/);
    await Deno.writeTextFile(join(folder, "merges.txt"), "#version: 0.2\r\na b\r\n");
    assert.deepEqual((await readTokenizer(folder)).encode("ab"), [2]);
    await Deno.writeTextFile(join(folder, "tokenizer_config.json"), '{"bos_token":3}');
    await refuses(/^Bad special token in tokenizer_config\.json/);
    await Deno.writeTextFile(join(folder, "tokenizer_config.json"), '{"add_bos_token":true}');
    await refuses(/adds a BOS token but names none that it knows$/);
    await Deno.writeTextFile(join(folder, "tokenizer_config.json"), "{}");
    await Deno.writeTextFile(join(folder, "tokenizer.json"), "{}");
    await refuses(/^Cannot read the tokenizer of .*: it has no model with a vocabulary$/);
    await Deno.writeTextFile(join(folder, "tokenizer.json"), '{"model":{"type":"Nope","vocab":{}}}');
    await refuses(/^Unknown tokenizer model "Nope" in .*; emend reads BPE, Unigram, WordPiece$/);
    const withModel = async (rest: string) => {
      await Deno.writeTextFile(join(folder, "tokenizer.json"), `{"model":{"type":"BPE",${rest}}`);
    };
    await withModel('"vocab":{}}');
    await refuses(/^Cannot read the tokenizer of /);
    await withModel('"vocab":{"a":-1},"merges":[]}');
    await refuses(/: token "a" has id -1$/);
    await withModel('"vocab":{},"merges":[]},"added_tokens":[{"id":1e9,"content":"b"}]');
    await refuses(/: token "b" has id 1000000000$/);
    await withModel(
      '"vocab":{},"merges":[]},"pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":[]}',
    );
    await refuses(/^Cannot read the tokenizer of /);
  });
});
