import assert from "node:assert/strict";
import { methodNamed } from "../../editors/methods.ts";
import recipes from "../../editors/recipes/rome.json" with { type: "json" };
import { parseConfig } from "../../engine/io/config.ts";
import { parseHparams, romeSchema } from "../../editors/hparams.ts";
import { romeRecipe } from "../../editors/recipes.ts";
import { ATLAS } from "./_prompts.ts";

// Fields of the published config.json files.
const GPT2 = {
  model_type: "gpt2",
  activation_function: "gelu_new",
  layer_norm_epsilon: 1e-5,
  n_positions: 1024,
  vocab_size: 50257,
};
const gpt2 = (n_layer: number, n_embd: number, n_head: number) =>
  parseConfig({ ...GPT2, n_layer, n_embd, n_head });

const LLAMA2 = {
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 4096,
  intermediate_size: 11008,
  max_position_embeddings: 4096,
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 32,
  rms_norm_eps: 1e-5,
  vocab_size: 32000,
};

const hparamsOf = (config: ReturnType<typeof parseConfig>) =>
  parseHparams(romeSchema, romeRecipe(config).hparams, "The recipe").hparams;

Deno.test("romeRecipe() gives ROME's published values when the config is a GPT-2's", () => {
  // kmeng01/rome, hparams/ROME/gpt2-{medium,large,xl}.json
  for (
    const [config, layer, clamp] of [
      [gpt2(24, 1024, 16), 8, 3],
      [gpt2(36, 1280, 20), 12, 4],
      [gpt2(48, 1600, 25), 17, 4],
    ] as const
  ) {
    assert.equal(romeRecipe(config).known, true);
    const h = hparamsOf(config);
    assert.deepEqual([h.layers, h.clamp_norm_factor], [[layer], clamp]);
    assert.deepEqual([h.v_num_grad_steps, h.v_lr, h.v_weight_decay, h.kl_factor], [20, 0.5, 0.5, 0.0625]);
    assert.equal(h.mom2_adjustment, true);
  }
});

Deno.test("romeRecipe() tells LLaMA-2 from LLaMA-3 and Mistral by the config alone", () => {
  const of = (change: object) => romeRecipe(parseConfig({ ...LLAMA2, ...change }));
  assert.match(of({}).source, /LLaMA-2-7B/);
  assert.match(
    of({ intermediate_size: 14336, num_key_value_heads: 8, vocab_size: 128256 }).source,
    /LLaMA-3/,
  );
  const mistral = { model_type: "mistral", intermediate_size: 14336, num_key_value_heads: 8 };
  assert.match(of({ ...mistral, sliding_window: 4096 }).source, /Mistral-7B/);
  // EasyEdit, hparams/ROME/llama-7b.yaml
  const h = hparamsOf(parseConfig(LLAMA2));
  assert.deepEqual([h.layers, h.v_num_grad_steps, h.v_weight_decay], [[5], 25, 1e-3]);
});

Deno.test("romeRecipe() knows the embedded model by its config", async () => {
  const recipe = romeRecipe(parseConfig(JSON.parse(await Deno.readTextFile(`${ATLAS}/config.json`))));
  assert.equal(recipe.known, true);
  assert.match(recipe.source, /^Recipe for atlas/);
});

Deno.test("romeRecipe() scales the layer by depth and says so when it does not know the model", () => {
  const small = romeRecipe(gpt2(12, 768, 12));
  assert.equal(small.known, false);
  assert.match(small.source, /^No recipe for this model: layer 4 of 12 by its depth/);
  assert.deepEqual(hparamsOf(gpt2(12, 768, 12)).layers, [4]);
  const { hparams, known } = romeRecipe(parseConfig({ ...LLAMA2, num_hidden_layers: 40, hidden_size: 5120 }));
  assert.deepEqual([known, hparams.layers, hparams.v_weight_decay], [false, [13], 1e-3]);
  assert.deepEqual(hparamsOf(gpt2(1, 64, 4)).layers, [0], "a single layer");
});

Deno.test("every recipe parses without a key too many, and edits a layer that the model has", () => {
  for (const { model, match, hparams } of recipes) {
    const parsed = parseHparams(romeSchema, hparams, model);
    assert.deepEqual(parsed.unknown, [], model);
    const [layer] = parsed.hparams.layers;
    assert.ok(layer < match.layers - 1, `${model}: layer ${layer} of ${match.layers}`);
  }
});

Deno.test("every recipe of MEMIT's kin and of UltraEdit parses, and edits layers that the model has", async () => {
  for (const file of ["memit", "pmet", "alphaedit", "emmet", "ultraedit"]) {
    const text = await Deno.readTextFile(new URL(`../../editors/recipes/${file}.json`, import.meta.url));
    for (const { model, match, hparams } of JSON.parse(text)) {
      // EMMET's file is that of the released method, which has more keys.
      const method = methodNamed(file === "emmet" ? "emmet-released" : file);
      const { hparams: { layers }, unknown } = method.parse(hparams, model);
      assert.deepEqual(unknown, [], `${file}, ${model}`);
      assert.ok(layers.length && layers.every((l) => l < match.layers - 1), `${file}, ${model}: ${layers}`);
    }
  }
});
