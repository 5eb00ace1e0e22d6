import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { parseConfig } from "../../../engine/io/config.ts";
import { InputError } from "../../../engine/io/errors.ts";
import { GPT2, NEEDS, STORIES, testWith } from "./_data.ts";

const llama = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 5,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  vocab_size: 512,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10000.0,
  bos_token_id: 1,
  eos_token_id: [2, 7],
};

/** Parses a llama config with changes; throws unless it is one. */
function parseLlama(changes: Record<string, unknown>) {
  const config = parseConfig({ ...llama, ...changes });
  assert(config.type === "llama");
  return config;
}

function refuses(raw: Record<string, unknown>, message: RegExp): void {
  assert.throws(() => parseConfig(raw), (error) => {
    assert(error instanceof InputError, String(error));
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("parseConfig() fills a LlamaConfig with transformers' defaults", () => {
  assert.deepEqual(parseConfig(llama), {
    type: "llama",
    variant: "llama",
    vocab: 512,
    width: 64,
    inner: 172,
    layers: 5,
    heads: 8,
    kvHeads: 4,
    headDim: 8,
    maxPositions: 512,
    ropeTheta: 10000,
    normEps: 1e-5,
    tied: false,
    attentionBias: false,
    outputBias: false,
    mlpBias: false,
    slidingFrom: 0,
    activation: "silu",
    bos: 1,
    eos: 2,
    stops: [2, 7],
  });
  assert.equal(parseLlama({ num_key_value_heads: undefined }).kvHeads, 8);
  assert.equal(parseLlama({ head_dim: 16 }).headDim, 16);
});

Deno.test("parseConfig() reads rotary settings in the old and in the new place", () => {
  const scaling = {
    factor: 32,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
    rope_type: "llama3",
  };
  const expected = {
    type: "llama3",
    factor: 32,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 8192,
  };
  const old = parseLlama({ rope_theta: 500000, rope_scaling: scaling });
  const current = parseLlama({ rope_theta: undefined, rope_parameters: { ...scaling, rope_theta: 500000 } });
  for (const config of [old, current]) {
    assert.equal(config.ropeTheta, 500000);
    assert.deepEqual(config.ropeScaling, expected);
  }
  const plain = parseLlama({
    rope_parameters: { rope_type: "default", rope_theta: 7 },
    rope_theta: undefined,
  });
  assert.equal(plain.ropeTheta, 7);
  assert.equal(plain.ropeScaling, undefined);
  assert.deepEqual(parseLlama({ rope_scaling: { type: "linear", factor: 2 } }).ropeScaling, {
    type: "linear",
    factor: 2,
  });
  assert.deepEqual(parseLlama({ rope_scaling: { type: "dynamic", factor: 2 } }).ropeScaling, {
    type: "dynamic",
    factor: 2,
    originalMaxPositions: 512,
  });
  const yarn = parseLlama({
    rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 128 },
  });
  assert.deepEqual(yarn.ropeScaling, {
    type: "yarn",
    factor: 4,
    originalMaxPositions: 128,
    betaFast: 32,
    betaSlow: 1,
    attentionFactor: 0.1 * Math.log(4) + 1,
  });
});

Deno.test("parseConfig() applies a sliding window only where the family uses it", () => {
  assert.equal(parseLlama({ sliding_window: 128 }).slidingWindow, undefined);
  assert.equal(parseLlama({ model_type: "mistral", sliding_window: 128 }).slidingWindow, 128);
  assert.equal(parseLlama({ model_type: "mistral", sliding_window: null }).slidingWindow, undefined);
  assert.equal(parseLlama({ model_type: "mistral" }).slidingWindow, 4096);
  const qwen = { model_type: "qwen2", sliding_window: 128, max_window_layers: 3 };
  assert.equal(parseLlama(qwen).slidingWindow, undefined);
  assert.equal(parseLlama({ ...qwen, use_sliding_window: true }).slidingWindow, 128);
  assert.equal(parseLlama({ ...qwen, use_sliding_window: true }).slidingFrom, 3);
});

Deno.test("parseConfig() knows which projections have a bias", () => {
  const biases = (changes: Record<string, unknown>) => {
    const { attentionBias, outputBias, mlpBias } = parseLlama(changes);
    return [attentionBias, outputBias, mlpBias];
  };
  assert.deepEqual(biases({}), [false, false, false]);
  assert.deepEqual(biases({ attention_bias: true, mlp_bias: true }), [true, true, true]);
  assert.deepEqual(biases({ model_type: "qwen2" }), [true, false, false]);
});

Deno.test("parseConfig() throws a clear InputError when something is wrong", () => {
  refuses({ model_type: "foo" }, /^Unknown model_type "foo"; emend reads gpt2, llama, mistral, qwen2$/);
  refuses({}, /^No model_type in the config; emend reads/);
  refuses({ model_type: ["llama"] }, /Unknown model_type/);
  refuses({ ...llama, hidden_size: undefined }, /Bad hidden_size in the config: .*found nothing/);
  refuses({ ...llama, hidden_size: 1e12 }, /Bad hidden_size in the config: .*found 1000000000000/);
  refuses({ ...llama, num_hidden_layers: 0 }, /Bad num_hidden_layers/);
  refuses({ ...llama, num_attention_heads: 7 }, /num_attention_heads 7 is not a multiple of .* 4/);
  refuses({ ...llama, hidden_size: 66 }, /hidden_size 66 is not a multiple of its num_attention_heads 8/);
  refuses({ ...llama, head_dim: 7 }, /heads of 7; rotary positions need an even size/);
  refuses({ ...llama, hidden_act: "gelu" }, /Bad hidden_act/);
  refuses({ ...llama, rms_norm_eps: "1e-5" }, /Bad rms_norm_eps/);
  refuses({ ...llama, rope_theta: 0 }, /Bad rope_theta/);
  refuses(
    { ...llama, rope_scaling: { type: "su", factor: 2 } },
    /Unknown rope scaling "su"; emend reads linear/,
  );
  refuses({ ...llama, rope_scaling: { type: "linear" } }, /rope_scaling has no factor/);
  refuses({ ...llama, rope_scaling: 2 }, /rope_scaling is 2, not an object/);
  refuses({ ...llama, rope_parameters: { partial_rotary_factor: 0.5 } }, /rotates only part of each head/);
  refuses({ model_type: "gpt2", n_embd: 770 }, /n_embd 770 is not a multiple of its n_head 12/);
  refuses({ model_type: "gpt2", activation_function: "swish9" }, /Bad activation_function .* found "swish9"/);
});

Deno.test("parseConfig() returns a whole config or throws InputError for 2000 spoilt ones", () => {
  const value = fc.oneof(fc.jsonValue(), fc.nat(4096), fc.constant(undefined));
  const type = fc.constantFrom("llama", "mistral", "qwen2", "gpt2", "x");
  const keys = [
    ...Object.keys(llama).slice(1),
    "rope_scaling",
    "rope_parameters",
    "head_dim",
    "sliding_window",
  ];
  const changes = fc.dictionary(fc.constantFrom(...keys), value, { maxKeys: 2 });
  const property = fc.property(type, changes, (model_type, change) => {
    try {
      const config = parseConfig({ ...llama, ...change, model_type });
      assert(Number.isSafeInteger(config.width * config.inner * config.layers) && config.normEps > 0);
    } catch (error) {
      assert(error instanceof InputError, String(error));
    }
  });
  fc.assert(property, { numRuns: 2000, seed: 7 });
});

testWith(GPT2, NEEDS.gpt2, "parseConfig() reads GPT-2's config", async (folder) => {
  assert.deepEqual(parseConfig(JSON.parse(await Deno.readTextFile(`${folder}/config.json`))), {
    type: "gpt2",
    vocab: 50257,
    width: 768,
    inner: 3072,
    layers: 12,
    heads: 12,
    maxPositions: 1024,
    normEps: 1e-5,
    tied: true,
    activation: "gelu_new",
    scaleAttnWeights: true,
    scaleByLayer: false,
    bos: 50256,
    eos: 50256,
  });
});

testWith(STORIES, NEEDS.stories, "parseConfig() reads stories260k's config", async (folder) => {
  const config = parseConfig(JSON.parse(await Deno.readTextFile(`${folder}/config.json`)));
  assert(config.type === "llama");
  assert.deepEqual([config.headDim, config.kvHeads, config.tied, config.eos], [8, 4, true, 2]);
});
