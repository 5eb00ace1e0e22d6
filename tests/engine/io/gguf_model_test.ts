import assert from "node:assert/strict";
import { InputError } from "../../../engine/io/errors.ts";
import { parseGguf } from "../../../engine/io/gguf.ts";
import { describeModel, shortest } from "../../../engine/io/gguf_model.ts";
import { ggufTokenizer, mergesFromScores } from "../../../engine/io/gguf_tokenizer.ts";
import { fromBytes } from "../../../engine/io/source.ts";
import { ARRAY, F32, ggufBytes, STRING, type TensorSpec, type Typed, U32 } from "./_gguf.ts";

const metadata: Record<string, Typed> = {
  "general.architecture": [STRING, "llama"],
  "llama.block_count": [U32, 1],
  "llama.context_length": [U32, 16],
  "llama.embedding_length": [U32, 8],
  "llama.feed_forward_length": [U32, 12],
  "llama.attention.head_count": [U32, 2],
  "llama.attention.layer_norm_rms_epsilon": [F32, 1e-5],
  "tokenizer.ggml.model": [STRING, "llama"],
  "tokenizer.ggml.tokens": [ARRAY, [STRING, ["<unk>", "a", "b", "ab"]]],
  "tokenizer.ggml.scores": [ARRAY, [F32, [0, 0, 0, -1]]],
};

const tensor = (name: string, values: number[] | number, shape: number[]): TensorSpec => {
  const array = typeof values === "number" ? new Float32Array(values) : Float32Array.from(values);
  return { name, shape, type: 0, data: new Uint8Array(array.buffer) };
};
const embedding = tensor("token_embd.weight", 32, [4, 8]);

async function parse(changes: Record<string, Typed | undefined> = {}, tensors: TensorSpec[] = [embedding]) {
  const entries = Object.entries({ ...metadata, ...changes }).filter(([, value]) => value !== undefined);
  return await parseGguf(fromBytes("x.gguf", ggufBytes(entries as [string, Typed][], tensors)));
}

async function refuses(
  message: RegExp,
  changes: Record<string, Typed | undefined>,
  tensors?: TensorSpec[],
): Promise<void> {
  const file = await parse(changes, tensors);
  await assert.rejects(
    async () => void (await describeModel(file), ggufTokenizer(file)),
    (error) =>
      error instanceof InputError && message.test(error.message) || assert.fail(String(error)) as never,
  );
}

Deno.test("describeModel() fills in what llama.cpp leaves out", async () => {
  const { config } = await describeModel(await parse());
  assert.equal(config.num_key_value_heads, 2);
  assert.equal(config.head_dim, 4);
  assert.equal(config.rope_theta, 10000);
  assert.equal(config.tie_word_embeddings, true);
  assert.equal(config.rope_scaling, undefined);
  assert.equal(config.rms_norm_eps, 1e-5);
});

Deno.test("describeModel() recovers rope scaling from metadata, and leaves plain divisors out", async () => {
  const scaled = await describeModel(
    await parse({ "llama.rope.scaling.type": [STRING, "linear"], "llama.rope.scaling.factor": [F32, 4] }),
  );
  assert.deepEqual(scaled.config.rope_scaling, { rope_type: "linear", factor: 4 });
  const plain = await describeModel(await parse({}, [embedding, tensor("rope_freqs.weight", [1, 1], [2])]));
  assert.equal(plain.config.rope_scaling, undefined);
  assert.deepEqual(plain.weights.map(({ name }) => name), ["model.embed_tokens.weight"]);
});

Deno.test("describeModel() names what it cannot read", async () => {
  await refuses(/^Unknown architecture "mamba" in x\.gguf; emend reads llama, mistral, qwen2, gpt2$/, {
    "general.architecture": [STRING, "mamba"],
  });
  await refuses(/^Metadata llama\.block_count of x\.gguf should be a number but is absent$/, {
    "llama.block_count": undefined,
  });
  await refuses(/head_count of x\.gguf should be a number but is a string$/, {
    "llama.attention.head_count": [STRING, "2"],
  });
  await refuses(/^x\.gguf is one of 3 parts of a model$/, { "split.count": [U32, 3] });
  await refuses(/^x\.gguf is a mixture of experts/, { "llama.expert_count": [U32, 8] });
  await refuses(/key heads of 4, value heads of 4 and 2 rotary dimensions/, {
    "llama.rope.dimension_count": [U32, 2],
  });
  await refuses(/^Unknown tensor "blk\.0\.ssm_in\.weight" in x\.gguf for architecture llama$/, {}, [
    embedding,
    tensor("blk.0.ssm_in.weight", 8, [8]),
  ]);
  await refuses(/has no tensor "token_embd\.weight"$/, {}, []);
  await refuses(/does not divide into 2 heads$/, {}, [embedding, tensor("blk.0.attn_q.weight", 48, [6, 8])]);
  await refuses(/rotary divisors of x\.gguf match no rope scaling/, {}, [
    embedding,
    tensor("rope_freqs.weight", [1, 3], [2]),
  ]);
  await refuses(/^Unknown tokenizer "bert" in x\.gguf; emend reads gpt2 and llama$/, {
    "tokenizer.ggml.model": [STRING, "bert"],
  });
  await refuses(/^Unknown tokenizer\.ggml\.pre "toString" in x\.gguf; emend reads gpt-2, /, {
    "tokenizer.ggml.model": [STRING, "gpt2"],
    "tokenizer.ggml.pre": [STRING, "toString"],
  });
  await refuses(/^No tokenizer in x\.gguf/, { "tokenizer.ggml.tokens": undefined });
  await refuses(/bos_token_id of x\.gguf is 9, but there are 4 tokens$/, {
    "tokenizer.ggml.bos_token_id": [U32, 9],
  });
  await refuses(/scores of x\.gguf should be 4 numbers$/, { "tokenizer.ggml.scores": [ARRAY, [F32, [1]]] });
  await refuses(/^Token "a" appears twice/, {
    "tokenizer.ggml.tokens": [ARRAY, [STRING, ["<unk>", "a", "b", "a"]]],
  });
});

Deno.test("mergesFromScores() orders merges by score, then by the length of their left part", () => {
  const tokens = ["a", "b", "ab", "ba", "aba"];
  assert.deepEqual(mergesFromScores(tokens, Float32Array.of(0, 0, -2, -1, -3)), [
    "b a",
    "a b",
    "ab a",
    "a ba",
  ]);
});

Deno.test("shortest() finds the decimal that an F32 was written from", () => {
  for (const value of [1e-5, 1e-6, 10000, 500000, 0.1, 1 / 3, 3.4e38, 1e-38, 123456.7]) {
    assert.equal(Math.fround(shortest(Math.fround(value))), Math.fround(value));
  }
  assert.equal(shortest(Math.fround(1e-5)), 1e-5);
  assert.equal(shortest(1000000), 1000000);
});
