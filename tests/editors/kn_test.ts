/** Editing by knowledge neurons: value slots, the two methods as entries of the table, refusals. */
import assert from "node:assert/strict";
import { applyDeltas, type WeightDelta } from "../../editors/edit.ts";
import { easyEditSlots, kn, knEasyEdit } from "../../editors/kn.ts";
import type { Method } from "../../editors/methods.ts";
import { AMPLIFY, predictWith, SUPPRESS } from "../../editors/neurons/interventions.ts";
import { coarseSet, mostFrequent, type Neuron, refine, sharedNeurons } from "../../editors/neurons/select.ts";
import { eraseSlots, updateSlots, valueSlots, wordEmbeddings } from "../../editors/neurons/slots.ts";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import type { Model } from "../../engine/models/model.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { withGpu } from "../_gpu.ts";
import { knCase, knTensors, MODELS, neuronsOf } from "./_kn.ts";
import { ATLAS } from "./_prompts.ts";

const NEURONS: Neuron[] = [{ layer: 2, index: 5 }, { layer: 0, index: 87 }, { layer: 2, index: 1 }];
const REQUEST = {
  prompt: "The first language of {} is",
  subject: "Danielle Darrieux",
  target: "English",
  true: "French",
};

const flat = (rows: readonly Float32Array[]) => rows.flatMap((row) => [...row]);

/** The slots of neurons before and after deltas. */
async function slotsBy(model: Model, neurons: readonly Neuron[], deltas: readonly WeightDelta[]) {
  const before = await valueSlots(model, neurons);
  using _applied = applyDeltas(model, deltas);
  return { before, after: await valueSlots(model, neurons) };
}

async function runWith(method: Method, model: Parameters<Method["run"]>[0], values: Record<string, unknown>) {
  const { hparams } = method.parse({ ...method.recipe(model).hparams, ...values }, "The test");
  return await method.run(model, [REQUEST], { hparams });
}

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  Deno.test(
    `easyEditSlots() on ${name} leaves the slots as EasyEdit does`,
    withGpu(async (gpu) => {
      const want = await knTensors(name);
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      for (const { case: one, ids, target, neurons } of (await knCase(name)).easyedit) {
        const chosen = neuronsOf(neurons);
        const deltas = await easyEditSlots(model, chosen, ids, target);
        assert.ok(deltas.every(({ rank }) => rank === 1), "All slots of a layer move by one vector");
        const { before, after } = await slotsBy(model, chosen, deltas);
        assert.ok(relativeError(flat(before), want.get(`easyedit.${one}.before`)!) < 1e-6, one);
        assert.ok(relativeError(flat(after), want.get(`easyedit.${one}.after`)!) < 1e-6, one);
      }
    }),
  );

  Deno.test(
    `updateSlots() on ${name} takes the old answer out and puts the new one in, on the slot's scale`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      const tokens = { from: 22, to: 60 }, lambdas = { norm_lambda1: 1, norm_lambda2: 8 };
      const { before, after } = await slotsBy(
        model,
        NEURONS,
        await updateSlots(model, NEURONS, tokens, lambdas),
      );
      const [old, wanted] = await wordEmbeddings(model, [tokens.from, tokens.to]);
      const unit = (e: Float32Array) => e.map((x) => x / Math.hypot(...e));
      before.forEach((slot, n) => {
        const norm = Math.hypot(...slot);
        const expected = slot.map((x, d) => x - norm * unit(old)[d] + 8 * norm * unit(wanted)[d]);
        assert.ok(relativeError(after[n], expected) < 1e-5);
      });
    }),
  );

  Deno.test(
    `eraseSlots() on ${name} silences neurons at all positions`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, `${MODELS}${name}`, { tokenizer: false });
      const deltas = await eraseSlots(model, NEURONS);
      assert.deepEqual(deltas.map(({ role, rank }) => [role, rank]), [
        ["layer.0.mlp.down", 1],
        ["layer.2.mlp.down", 2],
      ]);
      // With one token there is no position but the one that predicts.
      const question = { ids: [40], answer: 22 };
      const [suppressed] = await predictWith(model, [question], NEURONS, SUPPRESS);
      const [amplified] = await predictWith(model, [question], NEURONS, AMPLIFY);
      const [asItIs] = await predictWith(model, [question], [], 1);
      using _applied = applyDeltas(model, deltas);
      const [erased] = await predictWith(model, [question], [], 1);
      assert.ok(flat(await valueSlots(model, NEURONS)).every((x) => Math.abs(x) < 1e-6));
      assert.ok(Math.abs(erased.probability / suppressed.probability - 1) < 1e-5);
      assert.notEqual(suppressed.probability, asItIs.probability);
      assert.notEqual(amplified.probability, asItIs.probability);
    }),
  );
}

Deno.test(
  "kn edits a fact of atlas and names its neurons' layers; kn-easyedit runs beside it",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const marks: number[] = [];
    const { hparams } = kn.parse(kn.recipe(model).hparams, "The test");
    const made = await kn.run(model, [REQUEST], {
      hparams,
      onProgress: (done, all) => marks.push(done / all),
    });
    assert.equal(made.method, "kn");
    assert.equal(marks.at(-1), 1);
    assert.deepEqual(made.outcomes[0].warnings, []);
    const { tokenizer } = model;
    const ids = tokenizer.encode("The first language of Danielle Darrieux is");
    const questions = [" English", " French"].map((text) => ({
      ids,
      answer: tokenizer.encode(text).at(-1)!,
    }));
    const before = await predictWith(model, questions, [], 1);
    {
      using _applied = applyDeltas(model, made.deltas);
      const after = await predictWith(model, questions, [], 1);
      assert.ok(before[1].probability > 0.9 && after[0].probability > 0.9);
      assert.ok(Math.abs(made.outcomes[0].losses[0].nll + Math.log(after[0].probability)) < 1e-4);
    }
    assert.deepEqual(await predictWith(model, questions, [], 1), before);
    const tables = await runWith(knEasyEdit, model, {});
    assert.ok(tables.deltas.length > 0);
    assert.equal(tables.method, "kn-easyedit");
  }),
);

Deno.test(
  "kn keeps to the layers it is given and says why it finds nothing",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const few = { context_template_length_params: [[5, 2]], steps: 4 };
    const within = await runWith(kn, model, { ...few, layers: [0], min_prompts: 1, share: 0.3 });
    assert.deepEqual(within.deltas.map(({ role }) => role), ["layer.0.mlp.down"]);
    await assert.rejects(
      runWith(kn, model, { ...few, min_prompts: 4 }),
      (error: InputError) =>
        error instanceof InputError &&
        /No neuron is in the coarse sets of 4 of the 3 prompts/.test(error.message),
    );
    assert.throws(() => kn.requireKeys(["treshold"]), /kn has no hyper-parameter "treshold"/);
    assert.throws(() => kn.parse({ layers: [0], steps: 0 }, "x"), InputError);
    const { targets, steps } = kn.plan(model, [REQUEST], kn.parse({ layers: [0] }, "x").hparams);
    assert.equal(targets[0].prompts.length, 10);
    assert.ok(steps > 20);
  }),
);

Deno.test("coarseSet() takes the threshold in, or leaves it out", () => {
  const scores = [Float32Array.of(0, 5, 1), Float32Array.of(-9, 2, 0.5)];
  const names = (strict: boolean) =>
    coarseSet(scores, { threshold: 0.2, strict }).map(({ layer, index }) => [layer, index]);
  assert.deepEqual(names(false), [[0, 1], [0, 2], [1, 1]]);
  assert.deepEqual(names(true), [[0, 1], [1, 1]]);
  assert.deepEqual(coarseSet([Float32Array.of(0, -1)], { threshold: 0.2 }), []);
});

Deno.test("refine() moves the share up while facts have more than five neurons", () => {
  const neuron = (index: number) => ({ layer: 0, index });
  // Of 20 prompts neuron i is in the first i + 10.
  const prompts = Array.from(
    { length: 20 },
    (_, j) => Array.from({ length: 11 }, (_, i) => neuron(i)).filter((n) => j < n.index + 10),
  );
  const { facts, share } = refine([prompts], { share: 0.7, minPrompts: 3 });
  assert.equal(share.toFixed(2), "0.80");
  assert.deepEqual(facts[0].map((n) => n.index).sort((a, b) => a - b), [6, 7, 8, 9, 10]);
  const never = refine([prompts], { share: 0.7, minPrompts: 21 });
  assert.deepEqual(never.facts, [[]]);
  assert.equal(never.share.toFixed(2), "0.45", "Six rounds, five moves");
  assert.deepEqual(sharedNeurons(prompts, 20).map((n) => n.index), [10]);
  assert.deepEqual(mostFrequent(prompts, 2).map((n) => n.index), [10, 9]);
});
