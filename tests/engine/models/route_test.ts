/** Prompts in front: what is computed over a shared front equals what is computed from the whole text. */
import assert from "node:assert/strict";
import { generate } from "../../../engine/models/generate.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { addRouter, isRouted, type Router, unrouted } from "../../../engine/models/route.ts";
import { nextLogits } from "../../../engine/models/next.ts";
import { scoreTargets } from "../../../evaluation/scoring.ts";
import { withGpu } from "../../_gpu.ts";
import { readReference, relativeError } from "./_fixtures.ts";

/** The task's; f32 sums of this size differ by about 1e-6. */
const TOLERANCE = 1e-4;

const FRONTS = [
  [5, 17, 33, 8, 41, 60, 2, 2, 19, 77, 12, 30, 31, 32, 9, 50],
  [44, 3, 29, 71],
];
const PROMPTS = [[7, 12, 30], [9, 9, 41, 5], [13], [60, 61], [7, 12]];
/** Three prompts follow the first front, one the second; the last goes as it is. */
const front = (i: number) => [0, 0, 1, 0][i];

for (const name of ["gpt2-tiny", "llama-tiny", "mistral-tiny"]) {
  Deno.test(
    `scores, logits and texts over a shared front are those of the whole text on ${name}`,
    withGpu(async (gpu) => {
      const { folder } = await readReference(name);
      using model = await loadModel(gpu, folder, { tokenizer: false });
      const router: Router = (prompts) =>
        Promise.resolve(prompts.map((prompt) => {
          const at = front(PROMPTS.findIndex((p) => p.join() === prompt.join()));
          return at === undefined ? undefined : { model: unrouted(model), front: FRONTS[at], prompt };
        }));
      const whole = PROMPTS.map((prompt, i) => [...FRONTS[front(i)] ?? [], ...prompt]);
      const targets = [[3, 8, 40], [3, 9], [11]];
      const ask = (prompts: number[][]) =>
        prompts.flatMap((prompt) => targets.map((target) => ({ prompt, target })));
      const options = { maxTokens: 6, stop: [] };
      const plain = {
        scores: await scoreTargets(model, ask(whole)),
        logits: await nextLogits(model, whole),
        texts: await generate(model, whole, options),
      };
      {
        using _ = addRouter(model, router);
        assert.ok(isRouted(model) && !isRouted(unrouted(model)));
        const scores = await scoreTargets(model, ask(PROMPTS));
        assert.deepEqual(scores.map(({ argmax }) => argmax), plain.scores.map(({ argmax }) => argmax));
        scores.forEach(({ logProbs }, i) =>
          logProbs.forEach((p, t) => assert.ok(Math.abs(p - plain.scores[i].logProbs[t]) <= TOLERANCE))
        );
        const logits = await nextLogits(model, PROMPTS);
        logits.forEach((row, i) => assert.ok(relativeError(row, plain.logits[i]) <= TOLERANCE));
        assert.deepEqual(await generate(model, PROMPTS, options), plain.texts);
      }
      assert.ok(!isRouted(model));
      assert.deepEqual(
        await scoreTargets(model, ask(whole)),
        plain.scores,
        "a router that is off left a trace",
      );
    }),
  );
}

Deno.test(
  "a prompt that no router claims gives the bits that it gave without one; the last router decides",
  withGpu(async (gpu) => {
    const { folder } = await readReference("gpt2-tiny");
    using model = await loadModel(gpu, folder, { tokenizer: false });
    const items = PROMPTS.map((prompt) => ({ prompt, target: [3, 8] }));
    const before = await scoreTargets(model, items);
    const to = (ids: number[]): Router => (prompts) =>
      Promise.resolve(prompts.map((prompt) => ({ model: unrouted(model), front: ids, prompt })));
    using _none = addRouter(model, (prompts) => Promise.resolve(prompts.map(() => undefined)));
    assert.deepEqual(await scoreTargets(model, items), before);
    using _first = addRouter(model, to(FRONTS[0]));
    const [first] = await scoreTargets(model, items);
    {
      using _second = addRouter(model, to(FRONTS[1]));
      assert.notDeepEqual((await scoreTargets(model, items))[0], first);
    }
    assert.deepEqual((await scoreTargets(model, items))[0], first);
  }),
);
