import assert from "node:assert/strict";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import type { Model } from "../../engine/models/model.ts";
import { type Continuation, meanLogProb, scoreTargets, topTokens } from "../../evaluation/scoring.ts";
import { withGpu } from "../_gpu.ts";
import { logitsOf, modelFolder, NO_TOKENIZER } from "../patches/_models.ts";
import { logProbsPlainly, logSoftmax, scorePlainly } from "./_plain.ts";

/** Logits of tiny models are of size 1 and f32: sums of a few hundred terms. */
const TOLERANCE = 2e-5;

const ids = (length: number, seed: number) =>
  Array.from({ length }, (_, i) => (i * i * 7 + seed * 13 + i) % 97);

/** Compares with one full forward an item; a token within the tolerance of the likeliest may be called that. */
async function assertScores(model: Model, items: Continuation[]): Promise<void> {
  const got = await scoreTargets(model, items);
  assert.deepEqual(got.map((s) => s.logProbs.length), items.map((i) => i.target.length));
  assert.deepEqual(got.map((s) => s.argmax.length), items.map((i) => i.target.length));
  for (const [i, item] of items.entries()) {
    const expected = await logProbsPlainly(model, item);
    item.target.forEach((id, t) => {
      const { logProbs, argmax } = got[i];
      const e = expected[t][id];
      assert.ok(Math.abs(logProbs[t] - e) < TOLERANCE, `item ${i} token ${t}: ${logProbs[t]} is not ${e}`);
      const top = Math.max(...expected[t]);
      assert.ok(
        expected[t][argmax[t]] > top - TOLERANCE,
        `item ${i} token ${t}: ${argmax[t]} is not likeliest`,
      );
    });
  }
}

for (const name of ["gpt2-tiny", "llama-tiny", "mistral-tiny", "qwen2-tiny"]) {
  Deno.test(
    `scoreTargets() equals a full forward and log-softmax when prompts are shared (${name})`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      // Longer than mistral-tiny's window, so that tails see a part of their prompt only.
      const prompt = ids(9, 1);
      await assertScores(model, [
        { prompt, target: [5] },
        { prompt, target: [6] },
        { prompt: [3], target: [4] },
        { prompt, target: [5, 6, 7] },
        { prompt, target: [5, 6, 8, 9, 10, 11, 12, 13, 14, 15] },
        { prompt, target: [7, 6] },
        { prompt, target: [7, 7, 7, 6] },
        // The same ids, cut elsewhere; a prompt that begins like another; the same item again.
        { prompt: prompt.slice(0, 6), target: prompt.slice(6) },
        { prompt: [...prompt, 5], target: [6, 7] },
        { prompt: [3], target: [9, 8, 7, 6, 5] },
        { prompt: [3], target: [9, 8, 6, 6, 5] },
        { prompt: [3], target: [] },
        { prompt, target: [5] },
      ]);
    }),
  );
}

Deno.test(
  "scoreTargets() computes each prompt and each shared beginning of its targets once",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("mistral-tiny"), NO_TOKENIZER);
    const counts: number[] = [];
    const family: Model["family"] = {
      ...model.family,
      embed: (ctx, _, rows) => (counts.push(rows.count), model.family.embed(ctx, model, rows)),
    };
    const watched: Model = Object.create(model, { family: { value: family } });
    const prompt = ids(20, 1), other = ids(20, 2);
    await scoreTargets(watched, [
      { prompt, target: [1, 2, 3, 4] },
      { prompt: other, target: [1, 2] },
      { prompt, target: [1, 2, 9] },
      { prompt, target: [5] },
      { prompt, target: [6, 7, 8] },
      { prompt: [...other], target: [7] },
    ]);
    // 20 of the prompt, 1 2 3 fed after it, a tail of 6 7; 20 of the other with 1.
    assert.deepEqual(counts, [20 + 3 + 2 + 20 + 1]);
  }),
);

Deno.test(
  "scoreTargets() gives the same whatever else is asked, up to rounding",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const items = Array.from({ length: 12 }, (_, i) => ({
      prompt: ids(3 + 5 * (i % 4), i % 4),
      target: ids(1 + i % 5, i),
    }));
    const together = await scoreTargets(model, items);
    for (const [i, item] of items.entries()) {
      const [alone] = await scoreTargets(model, [item]);
      assert.deepEqual(together[i].argmax, alone.argmax);
      alone.logProbs.forEach((e, t) => assert.ok(Math.abs(together[i].logProbs[t] - e) < TOLERANCE));
    }
  }),
);

Deno.test(
  "scoreTargets() keeps order and values when the list takes several batches",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    // 70 sequences of 20 to 62 tokens: about 2,800 rows where a batch has 1,024 at most.
    const items = Array.from({ length: 70 }, (_, i) => ({
      prompt: ids(17 + i % 43, i),
      target: ids(1 + i % 3, i + 1),
    }));
    await assertScores(model, items);
    // One prompt with more continuations than a batch takes: 400 with three rows each.
    const prompt = ids(5, 3);
    const many = Array.from({ length: 400 }, (_, i) => ({ prompt, target: [i % 97, (7 * i) % 89, i % 3] }));
    const scores = await scoreTargets(model, many);
    for (const i of [0, 1, 340, 341, 342, 399]) {
      const expected = await scorePlainly(model, many[i]);
      expected.forEach((e, t) => assert.ok(Math.abs(scores[i].logProbs[t] - e) < TOLERANCE, `item ${i}`));
    }
    assert.deepEqual(await scoreTargets(model, []), []);
    assert.deepEqual(await scoreTargets(model, [{ prompt, target: [] }]), [{ logProbs: [], argmax: [] }]);
  }),
);

Deno.test(
  "scoreTargets() and topTokens() refuse what does not fit the context",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    // 64 positions; the last target token is not fed.
    const [full] = await scoreTargets(model, [{ prompt: ids(62, 0), target: ids(3, 0) }]);
    assert.ok(full.logProbs.every(Number.isFinite));
    const refused = (run: () => Promise<unknown>, message: RegExp) =>
      assert.rejects(run, (error) => error instanceof InputError && message.test(error.message));
    await refused(
      () => scoreTargets(model, [{ prompt: [1], target: [2] }, { prompt: ids(63, 0), target: ids(3, 0) }]),
      /^A prompt with its continuation has 65 tokens; the model's context holds 64$/,
    );
    await refused(
      () => scoreTargets(model, [{ prompt: [], target: [2] }]),
      /^Cannot score the continuation of an empty prompt$/,
    );
    await refused(() => topTokens(model, [ids(65, 0)], 5), /^A prompt has 65 tokens; the model's context /);
  }),
);

Deno.test("meanLogProb() is the mean over the tokens", () => {
  assert.equal(meanLogProb([-1, -2, -6]), -3);
});

Deno.test(
  "topTokens() gives the likeliest tokens in order, with their probabilities",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("llama-tiny"), NO_TOKENIZER);
    const { vocab, maxPositions } = model.dims;
    const length = Math.min(50, maxPositions);
    // More rows than one batch takes.
    const prompts = Array.from({ length: 30 }, (_, i) => ids(length - i % 7, i));
    const got = await topTokens(model, prompts, 5);
    assert.equal(got.length, 30);
    for (const [i, prompt] of prompts.entries()) {
      const all = await logitsOf(model, [prompt]);
      const logProbs = logSoftmax(all.subarray((prompt.length - 1) * vocab));
      const order = [...logProbs.keys()].sort((a, b) => logProbs[b] - logProbs[a]);
      assert.deepEqual(got[i].map((t) => t.id), order.slice(0, 5), `prompt ${i}`);
      got[i].forEach(({ p, id }) => assert.ok(Math.abs(p / Math.exp(logProbs[id]) - 1) < TOLERANCE));
    }
    const [everything] = await topTokens(model, [[1, 2]], vocab + 10);
    assert.equal(everything.length, vocab);
    assert.ok(everything.every(({ p }, i) => i === 0 || p <= everything[i - 1].p));
    assert.ok(Math.abs(everything.reduce((sum, { p }) => sum + p, 0) - 1) < 1e-9);
  }),
);
