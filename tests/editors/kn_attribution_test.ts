/**
 * Attributions of knowledge neurons against the released code (Hunter-DDM, EleutherAI, EasyEdit), and against
 * what integrated gradients promise. Fixtures are made by tools/fixtures/kn.py.
 */
import assert from "node:assert/strict";
import { attribute, type AttributionOptions } from "../../editors/neurons/attribution.ts";
import { findEasyEdit, findNeurons } from "../../editors/neurons/find.ts";
import { predictWith } from "../../editors/neurons/interventions.ts";
import { relationNeurons } from "../../editors/neurons/relation.ts";
import { ownNeurons } from "../../editors/neurons/select.ts";
import { loadModel } from "../../engine/models/load.ts";
import { withGpu } from "../_gpu.ts";
import { NEEDS, SMOLLM2 } from "../engine/io/_data.ts";
import { knCase, knSelections, knTensors, MODELS, neuronsOf, pairsOf, realCase } from "./_kn.ts";

const AUTHORS: AttributionOptions = { steps: 20, points: "left", at: "key" };

/** The largest difference, relative to the largest value. */
function offBy(got: readonly Float32Array[], want: Float32Array): number {
  const flat = got.flatMap((scores) => [...scores]);
  assert.equal(flat.length, want.length);
  const largest = want.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
  return flat.reduce((max, x, i) => Math.max(max, Math.abs(x - want[i])), 0) / largest;
}

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  Deno.test(
    `findNeurons() on ${name} agrees with the authors' code`,
    withGpu(async (gpu) => {
      const { relations, steps } = await knCase(name);
      const want = await knTensors(name);
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      for (const { name: relation, facts, shared } of relations) {
        const options = { steps, threshold: 0.2, share: 0.7, minPrompts: 3 };
        const found = await findNeurons(model, facts, options);
        facts.forEach((fact, i) => {
          const { prompts, refined } = found.facts[i];
          prompts.forEach(({ scores, coarse, probability }, j) => {
            const error = offBy(scores, want.get(`${relation}.${i}.${j}.scores`)!);
            assert.ok(error <= 1e-4, `${relation} fact ${i} prompt ${j} is off by ${error.toExponential(2)}`);
            assert.deepEqual(pairsOf(coarse), fact.coarse[j], `${relation} fact ${i}: coarse set ${j}`);
            assert.ok(Math.abs(probability / fact.probabilities[j].before - 1) < 1e-4);
          });
          assert.deepEqual(pairsOf(refined), fact.refined, `${relation} fact ${i}: refined set`);
        });
        const whole = await relationNeurons(model, facts, options);
        assert.deepEqual(whole.facts.map(({ refined }) => pairsOf(refined)), facts.map((f) => f.refined));
        assert.deepEqual(pairsOf(whole.shared), shared, `${relation}: neurons of the relation`);
      }
    }),
  );

  Deno.test(
    `predictWith() on ${name} suppresses and amplifies as the released code does`,
    withGpu(async (gpu) => {
      const { relations } = await knCase(name);
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      for (const { prompts, answer, chosen, probabilities } of relations.flatMap(({ facts }) => facts)) {
        const questions = prompts.map((ids) => ({ ids, answer }));
        for (const [factor, key] of [[0, "suppressed"], [1, "before"], [2, "enhanced"]] as const) {
          const got = await predictWith(model, questions, neuronsOf(chosen), factor);
          got.forEach(({ probability }, i) => {
            const want = probabilities[i][key];
            assert.ok(Math.abs(probability / want - 1) < 1e-4, `${key}: ${probability}, ${want}`);
          });
        }
      }
    }),
  );

  Deno.test(
    `findEasyEdit() on ${name} agrees with EasyEdit`,
    withGpu(async (gpu) => {
      const { easyedit } = await knCase(name);
      const want = await knTensors(name);
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      for (const { case: one, ids, truth, steps, threshold, neurons } of easyedit) {
        const options = { steps, adaptive_threshold: threshold, p: 0.4, refine: false };
        const { prompts, refined } = await findEasyEdit(model, [ids], truth, options);
        const error = offBy(prompts[0].scores, want.get(`easyedit.${one}.scores`)!);
        assert.ok(error <= 1e-4, `${one} is off by ${error.toExponential(2)}`);
        assert.deepEqual(pairsOf(refined), neurons, one);
      }
    }),
  );
}

for (const name of ["gpt2-tiny", "mistral-tiny"]) {
  Deno.test(
    `attributions of a layer of ${name} add up to P(answer) minus what is left without the layer's neurons`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      const { layers, inner } = model.dims;
      // Longer than mistral-tiny's attention window.
      const question = { ids: [70, 39, 51, 11, 58, 3, 4, 8, 15], answer: 22 };
      // The left sum of m points is off by about (f'(1) − f'(0))/2m.
      const [{ scores, probability }] = await attribute(model, [question], { ...AUTHORS, steps: 400 });
      for (let layer = 0; layer < layers; layer++) {
        const all = Array.from({ length: inner }, (_, index) => ({ layer, index }));
        const [without] = await predictWith(model, [question], all, 0);
        const sum = scores[layer].reduce((a, b) => a + b, 0);
        const difference = probability - without.probability;
        assert.ok(Math.abs(sum - difference) < 0.02 * Math.abs(difference), `${sum}, ${difference}`);
      }
    }),
  );
}

for (const name of ["gpt2-tiny", "mistral-tiny", "qwen2-tiny"]) {
  Deno.test(
    `attribute() on ${name} does not depend on what runs together`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      const questions = [
        { ids: [5], answer: 9 },
        { ids: [70, 39, 51, 11, 58, 3, 4, 8, 15], answer: 22 },
        { ids: [70, 39, 51], answer: 22 },
      ];
      for (const at of ["key", "pre-activation"] as const) {
        const options = { ...AUTHORS, at, steps: 6 };
        const together = await attribute(model, questions, options);
        const marks: number[] = [];
        const apart = await attribute(model, questions, {
          ...options,
          maxRows: 6,
          onProgress: (done, total) => marks.push(done / total),
        });
        assert.equal(marks.length, questions.length * model.dims.layers);
        assert.ok(marks.every((m, i) => i === 0 || m > marks[i - 1]));
        assert.equal(marks.at(-1), 1);
        together.forEach(({ scores, says }, q) => {
          const error = offBy(apart[q].scores, Float32Array.from(scores.flatMap((s) => [...s])));
          assert.ok(error < 1e-5, `${at} ${q}: ${error}`);
          assert.equal(apart[q].says, says);
        });
      }
    }),
  );
}

Deno.test({
  name: "attribute() on SmolLM2 agrees with the released code in f64" +
    (SMOLLM2 ? "" : ` (${NEEDS.smollm2})`),
  ignore: !SMOLLM2,
  fn: withGpu(async (gpu) => {
    const { ids, answer, layers } = await realCase();
    const want = (await knTensors("smollm2")).get("scores")!;
    using model = await loadModel(gpu, SMOLLM2!);
    const [{ scores }] = await attribute(model, [{ ids, answer }], AUTHORS);
    const width = model.dims.inner;
    layers.forEach((layer, i) => {
      const error = offBy([scores[layer]], want.subarray(i * width, (i + 1) * width));
      assert.ok(error <= 1e-4, `layer ${layer} is off by ${error.toExponential(2)}`);
    });
  }),
});

Deno.test(
  "attribute() waits once for the prompts and once a plan",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, `${MODELS}llama-tiny`, { tokenizer: false });
    const before = gpu.waits;
    await attribute(model, [{ ids: [3, 4, 5], answer: 6 }, { ids: [7, 8], answer: 6 }], AUTHORS);
    assert.equal(gpu.waits - before, 2);
    const held = gpu.memory.owners().map(([owner]) => owner).filter((owner) => owner !== "weights");
    assert.deepEqual(held.filter((owner) => owner === "cache"), []);
  }),
);

Deno.test("ownNeurons() leaves out what the relation shares, as the authors' code does", async () => {
  const { facts, selected } = await knSelections();
  const sets = facts.map(neuronsOf);
  sets.forEach((set, i) => assert.deepEqual(pairsOf(ownNeurons(set, sets)), selected[i]));
});
