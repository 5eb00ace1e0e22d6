/** Dense changes in everything that evaluation does with edits: layers of them, their size, firewall, drift. */
import assert from "node:assert/strict";
import { applyDeltas, denseDelta, type WeightDelta } from "../../editors/edit.ts";
import { loadModel } from "../../engine/models/load.ts";
import { changedRoles } from "../../engine/models/replace.ts";
import { drift, driftBaseline } from "../../evaluation/drift.ts";
import { scaled } from "../../evaluation/firewall.ts";
import { EditLayers } from "../../evaluation/layers.ts";
import { overlaidChanges, weightChanges } from "../../evaluation/norms.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { merged } from "../editors/_merged.ts";
import { normals } from "../engine/ops/_reference.ts";
import { editOf, logitsOf, modelFolder, noise } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";

const IDS = [[5, 17, 60, 2, 44, 90], [80, 1, 33]];
/** The same sums in another order, through a few layers. */
const SUMS = 1e-5;

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  Deno.test(
    `EditLayers and weightChanges() treat dense changes of ${name} as they treat their factors`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), { tokenizer: false });
      const plain = await logitsOf(model, IDS);
      const factors = [1, 3, 5].map((seed) => noise(model, "layer.1.mlp.down", 2, seed));
      const mixed = [factors[0], merged(model, factors[1]), merged(model, factors[2])];
      const read = async (deltas: WeightDelta[]) => {
        using layers = new EditLayers(model);
        for (const delta of deltas) await layers.add({ deltas: [delta] });
        assert.deepEqual(await layers.without(() => logitsOf(model, IDS)), plain);
        return { logits: await logitsOf(model, IDS), changes: await overlaidChanges(model) };
      };
      const low = await read(factors), dense = await read(mixed);
      assert.ok(relativeError(dense.logits, low.logits) < SUMS);
      assert.deepEqual(changedRoles(model), []);
      assert.deepEqual(await logitsOf(model, IDS), plain);
      const figures = (changes: typeof low.changes) =>
        changes.flatMap((c) => [c.frobenius, c.relative, c.growth]);
      assert.ok(relativeError(figures(dense.changes), figures(low.changes)) < SUMS);
      // What lies on the model makes no difference to what deltas do to the stored weights.
      using _on = applyDeltas(model, mixed);
      for (const deltas of [factors, mixed]) {
        assert.ok(relativeError(figures(await weightChanges(model, deltas)), figures(low.changes)) < SUMS);
      }
      const half = scaled(editOf(mixed), 0.5).deltas;
      const [{ frobenius }] = await weightChanges(model, half);
      assert.ok(Math.abs(frobenius / low.changes[0].frobenius - 0.5) < SUMS);
    }),
  );
}

Deno.test(
  "drift() begins below the lowest tensor that is changed, whatever kind it is",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const options = { text: false, repetition: false, prompts: 4 } as const;
    for (const role of ["layer.2.mlp.down.bias", "final.norm", "embed"]) {
      using baseline = await driftBaseline(model, options);
      const size = role === "embed" ? model.dims.vocab * model.dims.width : model.dims.width;
      using _on = applyDeltas(model, [denseDelta(role, Float32Array.from(normals(size, 1, 0.05)))]);
      const first = await drift(model, baseline);
      assert.ok(first["drift.kl"] > 1e-6, role);
      assert.ok(first["drift.norm_growth"] !== 0, role);
      // The second time from the residuals that the first left.
      assert.deepEqual(await drift(model, baseline), first);
    }
  }),
);
