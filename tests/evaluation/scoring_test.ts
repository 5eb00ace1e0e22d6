import assert from "node:assert/strict";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import { type Continuation, meanLogProb, scoreContinuations, topTokens } from "../../evaluation/scoring.ts";
import { withGpu } from "../_gpu.ts";
import { logitsOf, modelFolder, NO_TOKENIZER } from "../patches/_models.ts";
import { logSoftmax, scorePlainly } from "./_plain.ts";

/** Logits of tiny models are of size 1 and f32: sums of a few hundred terms. */
const TOLERANCE = 2e-5;

const ids = (length: number, seed: number) =>
  Array.from({ length }, (_, i) => (i * i * 7 + seed * 13 + i) % 97);

async function assertScores(model: Parameters<typeof scorePlainly>[0], items: Continuation[]): Promise<void> {
  const got = await scoreContinuations(model, items);
  assert.deepEqual(got.map((s) => s.length), items.map((i) => i.target.length));
  for (const [i, item] of items.entries()) {
    const expected = await scorePlainly(model, item);
    expected.forEach((e, t) =>
      assert.ok(Math.abs(got[i][t] - e) < TOLERANCE, `item ${i} token ${t}: ${got[i][t]} is not ${e}`)
    );
  }
}

for (const name of ["gpt2-tiny", "mistral-tiny", "qwen2-tiny"]) {
  Deno.test(
    `scoreContinuations() equals a full forward and log-softmax when prompts are shared (${name})`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      const prompt = ids(9, 1);
      await assertScores(model, [
        { prompt, target: [5] },
        { prompt, target: [6] },
        { prompt, target: [5, 6, 7] },
        { prompt, target: [5, 6, 8] },
        { prompt, target: [7, 6] },
        // The same ids, cut elsewhere; a prompt that begins like another; the same item again.
        { prompt: prompt.slice(0, 6), target: prompt.slice(6) },
        { prompt: [...prompt, 5], target: [6, 7] },
        { prompt: [3], target: [4] },
        { prompt, target: [5] },
      ]);
    }),
  );
}

Deno.test(
  "scoreContinuations() keeps order and values when the list takes several batches",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    // 70 sequences of 20 to 62 tokens: about 2,800 rows where a batch has 1,024 at most.
    const items = Array.from({ length: 70 }, (_, i) => ({
      prompt: ids(17 + i % 43, i),
      target: ids(1 + i % 3, i + 1),
    }));
    await assertScores(model, items);
    assert.deepEqual(await scoreContinuations(model, []), []);
  }),
);

Deno.test(
  "scoreContinuations() and topTokens() refuse what does not fit the context",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    // 64 positions; the last target token is not fed.
    const [full] = await scoreContinuations(model, [{ prompt: ids(62, 0), target: ids(3, 0) }]);
    assert.ok(full.every(Number.isFinite));
    const refused = (run: () => Promise<unknown>, message: RegExp) =>
      assert.rejects(run, (error) => error instanceof InputError && message.test(error.message));
    await refused(
      () =>
        scoreContinuations(model, [{ prompt: [1], target: [2] }, { prompt: ids(63, 0), target: ids(3, 0) }]),
      /^A prompt with its continuation has 65 tokens; the model's context holds 64$/,
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
