import assert from "node:assert/strict";
import { contextPlan, contexts } from "../../editors/contexts.ts";
import { applyDeltas, denseDelta } from "../../editors/edit.ts";
import { loadModel } from "../../engine/models/load.ts";
import { withGpu } from "../_gpu.ts";
import { NEEDS, STORIES, testWith } from "../engine/io/_data.ts";
import { logitsOf } from "../patches/_models.ts";
import { ATLAS } from "./_prompts.ts";

const ROME: [number, number][] = [[5, 10], [10, 10]];

Deno.test(
  "contexts() makes 21 texts, the same ones when the seed is the same",
  withGpu(async (gpu) => {
    using first = await loadModel(gpu, ATLAS);
    using second = await loadModel(gpu, ATLAS);
    const texts = await contexts(first, ROME, 3);
    assert.equal(texts.length, 21);
    assert.equal(texts[0], "");
    assert.equal(await contexts(first, ROME, 3), texts, "made once a model");
    assert.deepEqual(await contexts(second, ROME, 3), texts);
    assert.notDeepEqual(await contexts(second, ROME, 4), texts);
    assert.ok(new Set(texts).size > 15, "sampled, not greedy");
  }),
);

Deno.test(
  "contexts() has the asked-for lengths, ends with a full stop and a space, and shows no special token",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const texts = await contexts(model, ROME);
    texts.slice(1).forEach((text, i) => {
      assert.match(text, /\S\. $/);
      assert.doesNotMatch(text, /<\|endoftext\|>|\n\n/);
      // The end-of-text token at the start counts, and is not part of the text.
      const tokens = model.tokenizer.encode(text.slice(0, -2)).length;
      const most = i < 10 ? 4 : 9;
      assert.ok(tokens >= 1 && tokens <= most, `${JSON.stringify(text)} has ${tokens} tokens of ${most}`);
    });
  }),
);

Deno.test(
  "contexts() are those of the unedited model, whatever lies on it",
  withGpu(async (gpu) => {
    using plain = await loadModel(gpu, ATLAS);
    using edited = await loadModel(gpu, ATLAS);
    const { width, inner } = edited.dims;
    const role = "layer.4.mlp.down";
    using _deltas = applyDeltas(edited, [
      {
        role,
        rank: 1,
        left: new Float32Array(width).map((_, i) => i % 7 - 3),
        right: new Float32Array(inner).fill(1),
      },
      denseDelta("embed", new Float32Array(edited.dims.vocab * width).map((_, i) => i % 5 / 10)),
    ]);
    const ids = [[11, 40, 41]];
    const [before, after] = [await logitsOf(plain, ids), await logitsOf(edited, ids)];
    assert.notDeepEqual(after, before, "the edit changes the model");
    assert.deepEqual(await contexts(edited, [[6, 5]], 1), await contexts(plain, [[6, 5]], 1));
    assert.deepEqual(await logitsOf(edited, ids), after, "and stays on it");
  }),
);

testWith(
  STORIES,
  NEEDS.stories,
  "contexts() begins with the five words when the model is no GPT-2",
  (path) =>
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, path);
      const texts = await contexts(model, [[6, 7]]);
      const starts = texts.slice(1).map((text) => /^(The|Therefore|Because|I|You)/.exec(text)?.[0]);
      // "The" is how "Therefore" begins: telling them apart takes the order.
      assert.deepEqual(
        starts.map((s) => s?.slice(0, 3)),
        ["The", "The", "Bec", "I", "You", "The", "The"],
      );
      assert.ok(texts[2].startsWith("Therefore"));
    })(),
);

Deno.test("contextPlan() stands for as many contexts of as many tokens as asked for", () => {
  const plan = contextPlan(ROME);
  assert.equal(plan.length, 21);
  assert.equal(plan[0], "");
  assert.deepEqual(new Set(plan.slice(1).map((text) => text.split(" ").length - 1)), new Set([5, 10]));
});
