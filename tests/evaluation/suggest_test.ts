/** `suggestRecipe()` as programs call it, by the library's front door. */
import assert from "node:assert/strict";
import { atlasFolder } from "../../atlas/mod.ts";
import type { LayerEffect, LayerScore } from "../../evaluation/suggest.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { loadModel } from "../../engine/models/load.ts";
import { type EditCase, InputError, readDataset, sampleCases, suggestRecipe } from "../../mod.ts";
import { withGpu } from "../_gpu.ts";

Deno.test(
  "suggestRecipe() tries facts that the model knows first, and leaves model and memory as they were",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const cases = sampleCases(await readDataset("atlas"), { limit: 3 });
    const unedited = await fingerprint(model);
    const held = () => {
      gpu.memory.trim();
      // The device probes itself once, at the first plan.
      return gpu.memory.owners().filter(([owner]) => owner !== "probe");
    };
    const owners = held();
    const [{ requests: [request] }] = cases;
    const unknown: EditCase = { ...cases[0], requests: [{ ...request, true: "Esperanto" }] };
    const marks: number[] = [];
    const swept = await suggestRecipe(model, "atlas", {
      ...{ by: "sweep", cases: [unknown, ...cases], facts: 2, layers: [1, 4] },
      onProgress: (done, total) => marks.push(done / total),
    });
    assert.deepEqual(marks, [0.25, 0.5, 0.75, 1]);
    assert.deepEqual([swept.evidence.facts, swept.evidence.known], [2, 2]);
    const scores = swept.evidence.layers as LayerScore[];
    assert.deepEqual(scores.map(({ layer }) => layer), [1, 4]);
    for (const { ES, PS, NS, score, magnitude } of scores) {
      for (const share of [ES, PS, NS, score]) assert.ok(share >= 0 && share <= 1);
      assert.ok(Math.abs(magnitude) <= 1);
    }
    // Editing layer 4 of 6 takes rarely; layer 1 is the recipe's neighbour.
    assert.ok(scores[0].score > scores[1].score);
    assert.deepEqual(swept.hparams.layers, [1]);
    assert.deepEqual(swept.match, { type: "gpt2", width: 256, layers: 6, inner: 1024 });

    const traced = await suggestRecipe(model, "atlas", { by: "trace", cases: [unknown, ...cases], facts: 2 });
    const effects = (traced.evidence.layers as LayerEffect[]).map(({ effect }) => effect);
    assert.equal(effects.length, 6);
    assert.deepEqual(traced.hparams.layers, [effects.indexOf(Math.max(...effects))]);
    assert.deepEqual(held(), owners, "memory is given back");
    assert.equal(await fingerprint(model), unedited);

    const nothing = suggestRecipe(model, "atlas", { by: "trace", cases: [unknown], facts: 2 });
    await assert.rejects(nothing, /The model knows none of the facts, so there is nothing to trace/);
    const several = { ...cases[0], requests: [request, request] };
    const none = suggestRecipe(model, "atlas", { by: "sweep", cases: [several], facts: 2 });
    await assert.rejects(none, InputError);
  }),
);
