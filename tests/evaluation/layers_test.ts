/** Edits of a sequence on one model: what hundreds of them hold, that they come off, that they come again. */
import assert from "node:assert/strict";
import type { WeightDelta } from "../../editors/edit.ts";
import { loadModel } from "../../engine/models/load.ts";
import { type Model, weight } from "../../engine/models/model.ts";
import { changedRoles } from "../../engine/models/replace.ts";
import { EditLayers } from "../../evaluation/layers.ts";
import { addUp } from "../../evaluation/sum.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { merged } from "../editors/_merged.ts";
import { logitsOf, modelFolder, noise } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";

const IDS = [[5, 17, 60, 2, 44, 90], [80, 1, 33]];
/** Products of f32 in another order, against sums in f64. */
const SUMS = 1e-5;

/** Σ ΔW in stored order, each summed in f64. */
function total(model: Model, deltas: readonly WeightDelta[]): Float64Array {
  const sum = new Float64Array(0);
  return deltas.reduce((sum, delta) => {
    const { dense } = merged(model, delta);
    return Float64Array.from(dense!, (x, i) => x + (sum[i] ?? 0) + (delta.dense?.[i] ?? 0));
  }, sum);
}

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  const role = "layer.1.mlp.down";
  Deno.test(
    `addUp() keeps factors of ${name} while they are smaller than the weight, then their product`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), { tokenizer: false });
      const { out, in: inner } = weight(model, role);
      const evens = Math.ceil(out * inner / (out + inner));
      const deltas = Array.from({ length: evens }, (_, seed) => noise(model, role, 2, seed + 1));
      let sum: WeightDelta | undefined, folds = 0;
      for (const [i, delta] of deltas.entries()) {
        const before = sum?.rank ?? 0;
        sum = await addUp(model, sum, delta);
        assert.ok(sum.rank * (out + inner) < out * inner);
        if (sum.rank < before) folds++;
        assert.ok(
          relativeError(total(model, [sum]), total(model, deltas.slice(0, i + 1))) < SUMS,
          `after ${i + 1}`,
        );
      }
      assert.equal(folds, 2, "twice as many ranks as fit");
    }),
  );

  Deno.test(
    `EditLayers of ${name} folds, comes off exactly, and holds the same bits when laid again`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), { tokenizer: false });
      const plain = await logitsOf(model, IDS);
      const deltas = Array.from({ length: 30 }, (_, seed) => {
        const delta = noise(model, role, 2, seed + 1);
        return { ...delta, left: delta.left.map((x) => x / 6) };
      });
      const held: number[] = [];
      const lay = async () => {
        using layers = new EditLayers(model);
        for (const delta of deltas) {
          await layers.add({ deltas: [delta] });
          held.push(gpu.memory.owners().find(([owner]) => owner === "overlays")![1]);
        }
        assert.deepEqual(changedRoles(model), [role]);
        assert.deepEqual(await layers.without(() => logitsOf(model, IDS)), plain);
        return await logitsOf(model, IDS);
      };
      const first = await lay();
      assert.deepEqual(changedRoles(model), []);
      assert.deepEqual(await logitsOf(model, IDS), plain);
      assert.deepEqual(await lay(), first);
      const { out, in: inner } = weight(model, role);
      // The edited copy and factors of no more numbers than it.
      assert.ok(Math.max(...held) <= 2 * 4 * out * inner, `${Math.max(...held)} of ${4 * out * inner}`);
      assert.ok(relativeError(first, plain) > 100 * SUMS, "the edits do something");
    }),
  );
}
