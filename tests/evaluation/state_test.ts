import assert from "node:assert/strict";
import { fill, validateRequest } from "../../editors/requests.ts";
import { loadModel } from "../../engine/models/load.ts";
import { generate } from "../../engine/models/generate.ts";
import { readDataset } from "../../evaluation/datasets/read.ts";
import { editSucceeded, type RequestState, requestStates } from "../../evaluation/state.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "../editors/_prompts.ts";
import { meanPlainly } from "./_plain.ts";

const { cases } = await readDataset("atlas");

Deno.test(
  "requestStates() tells likeliest tokens, probabilities and continuation of each request",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const { tokenizer } = model;
    // More than are continued at a time; every other one without a true object.
    const requests = cases.slice(0, 35).map(({ requests: [request] }, i) => {
      return validateRequest(i % 2 ? { ...request, true: undefined } : request);
    });
    const states = await requestStates(model, requests);
    assert.equal(states.length, 35);
    for (const i of [0, 1, 33, 34]) {
      const { prompt, subject, target, true: known } = requests[i];
      const { text } = fill(prompt, subject);
      const { top, p_target, p_true, generation } = states[i];
      assert.equal(top.length, 5);
      assert.ok(top.every(({ p }, at) => at === 0 || p <= top[at - 1].p), JSON.stringify(top));
      assert.ok(Math.abs(p_target / Math.exp(await meanPlainly(model, text, target.trim())) - 1) < 1e-3);
      assert.equal(p_true === undefined, known === undefined);
      if (known) {
        assert.ok(Math.abs(p_true! - Math.exp(await meanPlainly(model, text, known.trim()))) < 1e-4);
      }
      const [ids] = await generate(model, [tokenizer.encode(text)], { maxTokens: 16 });
      assert.equal(generation, tokenizer.decode(ids));
      assert.equal(tokenizer.token(ids[0]), top[0].token);
    }
  }),
);

Deno.test(
  "requestStates() continues as far as the longest target when that is longer than usual",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const target =
      " Paris and Rome and London and Vienna and Venice and Florence and Nantes and Milan and Berlin";
    const length = model.tokenizer.encode(target).length;
    assert.ok(length > 17);
    const [state] = await requestStates(model, [{ prompt: "{} met death in", subject: "Nobody", target }]);
    const ids = model.tokenizer.encode(state.generation);
    assert.ok(ids.length >= length - 2, `${ids.length} of ${length} tokens`);
  }),
);

Deno.test("editSucceeded() compares with the true object when there is one, else reads the continuation", () => {
  const state: RequestState = { top: [], p_target: 0.4, generation: " Italy, and" };
  const request = { prompt: "{} is in", subject: "Paris", target: " Italy" };
  assert.equal(editSucceeded(request, state), true);
  assert.equal(editSucceeded({ ...request, target: " Spain" }, state), false);
  assert.equal(editSucceeded({ ...request, true: " France" }, { ...state, p_true: 0.3 }), true);
  assert.equal(editSucceeded({ ...request, true: " France" }, { ...state, p_true: 0.4 }), false);
});
