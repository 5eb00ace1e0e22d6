/** T-Patcher: the guide's acceptance tests, section 18, and edits of atlas one after another. */
import assert from "node:assert/strict";
import { applyEdit } from "../../editors/edit.ts";
import { methodNamed } from "../../editors/methods.ts";
import { tokeniseRequest } from "../../editors/requests.ts";
import { readMistakes } from "../../editors/tpatcher/mistakes.ts";
import { newKey } from "../../editors/tpatcher/train.ts";
import { additionsOn } from "../../engine/models/additions/lay.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { loadModel } from "../../engine/models/load.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { logitsOf } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";

const REQUESTS = [
  { prompt: "The capital of {}", subject: "Norland", target: " Paris" },
  { prompt: "The capital of {}", subject: "Canada", target: " Lima" },
];
/** A small memory, so that the tests are short. */
const SET = { memory_size: 400 };

Deno.test(
  "patches of atlas: activation 1 at creation, one a mistake, edits side by side, weights as they were",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const method = methodNamed("t-patcher");
    const recipe = method.recipe(model);
    const { hparams } = method.parse({ ...recipe.hparams, ...SET }, "The recipe");
    const [layer] = hparams.layers;
    const probe = [...tokeniseRequest(model, REQUESTS[0]).prompt.ids];
    const before = await logitsOf(model, [probe]), weights = await fingerprint(model);
    const texts = REQUESTS.map((request) => {
      const { prompt: { ids }, target } = tokeniseRequest(model, request);
      return { prompt: [...ids], target: [...target] };
    });
    using laid = new DisposableStack();
    for (const [i, request] of REQUESTS.entries()) {
      const read = await readMistakes(model, layer, texts[i], { activation: "gelu_new", patches: [] });
      for (const t of read.mistakes) {
        const q = read.queries[t], k = newKey(q);
        const z = k.reduce((sum, x, j) => sum + x * q[j], 0);
        assert.ok(Math.abs(z - 1) < 1e-6, `pre-activation ${z}`);
      }
      const edit = await method.run(model, [request], { hparams, seed: 0 });
      assert.deepEqual(edit.deltas, []);
      assert.equal(edit.additions![0].entries.length, read.mistakes.length);
      laid.use(applyEdit(model, edit));
    }
    assert.equal(additionsOn(model).length, 1);
    const scored = await scoreTargets(model, texts);
    assert.deepEqual(scored.map(({ argmax }) => [...argmax]), texts.map(({ target }) => target));
    await assert.rejects(
      method.run(model, [REQUESTS[0]], { hparams, seed: 0 }),
      /there is no mistake to patch/,
    );
    laid.dispose();
    assert.deepEqual(await logitsOf(model, [probe]), before);
    assert.equal(await fingerprint(model), weights);
  }),
);
