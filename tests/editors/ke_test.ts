/** `ke` as a method: edits by a trained editor, once or in a loop, as files, and what it refuses. */
import { deepStrictEqual, notDeepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { atlasFolder } from "../../atlas/mod.ts";
import { applyEdit } from "../../editors/edit.ts";
import { editorBase, writeEditor } from "../../editors/hypernetworks/file.ts";
import { editorKind, parseTraining } from "../../editors/hypernetworks/kinds.ts";
import { networkTensors, readNumbers } from "../../editors/hypernetworks/learner.ts";
import { methodNamed } from "../../editors/methods.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { applyPatch, patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";

const FACT = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" };
const SIZES = { lstm: 4, condition: 8, hidden: 4, max_scale: 1e-3 };

/** An untrained editor as a file. */
async function editorFile(model: LoadedModel, folder: string, name = "ke"): Promise<string> {
  const kind = editorKind(name), { hparams } = parseTraining(kind, SIZES, "The test");
  const roles = kind.roles(model, hparams), shape = kind.shape(hparams);
  using network = kind.network(model, roles, shape, undefined, 5);
  const head = { method: name, base: await editorBase(model), roles, shape, training: { hparams } };
  const path = `${folder}/${name}.safetensors`;
  await writeEditor(path, head, await readNumbers(model, networkTensors(network)));
  return path;
}

Deno.test(
  "ke: the loop makes the same change at most five times while the answer is not given, and a file says the same",
  withGpu((gpu) =>
    inFolder(async (folder) => {
      using model = await loadModel(gpu, await atlasFolder());
      const { tokenizer } = model, weights = await fingerprint(model);
      const editor = await editorFile(model, folder);
      const ke = methodNamed("ke");
      const made = async (settings: Record<string, unknown>, fact = FACT) => {
        const { hparams } = ke.parse({ editor, ...settings }, "The test");
        return await ke.run(model, [fact], { hparams, seed: 0 });
      };
      const once = await made({}), often = await made({ loop: 5 });
      deepStrictEqual([once, often].map(({ outcomes: [{ steps }] }) => steps), [1, 5]);
      strictEqual(once.deltas.length, 4 * model.dims.layers);
      once.deltas.forEach(({ role, left, right, dense }, i) => {
        const over = often.deltas[i];
        const five = (side?: Float32Array) => side?.map((x) => 5 * x);
        deepStrictEqual([over.role, over.left, over.right, over.dense], [
          role,
          five(left),
          right,
          five(dense),
        ]);
      });
      // What the model says anyway it says after one small change too.
      const said = await made({ loop: 5 }, { ...FACT, target: "Rome" });
      strictEqual(said.outcomes[0].steps, 1);

      const items = ["Paris", "Rome"].map((answer) => ({
        prompt: tokenizer.encode("Giovanni Lanfranco met death in"),
        target: tokenizer.encode(` ${answer}`),
      }));
      const before = await scoreTargets(model, items), scores = [];
      const path = `${folder}/patch.safetensors`;
      await writePatch(path, await patchOf(model, often));
      for (
        const lay of [() => applyEdit(model, often), async () => applyPatch(model, await readPatch(path))]
      ) {
        using _laid = await lay();
        scores.push(await scoreTargets(model, items));
      }
      notDeepStrictEqual(scores[0], before);
      deepStrictEqual(scores[1], scores[0]);
      deepStrictEqual(await scoreTargets(model, items), before);
      strictEqual(await fingerprint(model), weights);
    })
  ),
);

Deno.test(
  "ke refuses editors of the variant, missing ones and loops that it has not",
  withGpu((gpu) =>
    inFolder(async (folder) => {
      using model = await loadModel(gpu, await atlasFolder());
      const ke = methodNamed("ke");
      const run = (editor: string, layers: number[] = []) =>
        ke.run(model, [FACT], { hparams: { ...ke.parse({ editor, layers }, "The test").hparams }, seed: 0 });
      await rejects(run(await editorFile(model, folder, "ke-efk")), /an editor of ke-efk, not of ke/);
      await rejects(run(`${folder}/none.safetensors`), /No such editor/);
      await rejects(run(await editorFile(model, folder), [5]), /the hyper-parameters ask for layer\.5\.attn/);
      throws(() => ke.parse({ loop: 6 }, "The test"), /loop/);
      throws(() => ke.requireKeys(["lop"]), /ke has no hyper-parameter "lop"/);
      ok(methodNamed("ke-efk") !== ke);
    })
  ),
);
