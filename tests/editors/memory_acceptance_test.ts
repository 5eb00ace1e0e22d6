/**
 * What the methods of the memory-and-meta guide must hold in common (section 18, b to e): the file of one that leaves
 * the weights alone says what the edit says, to the bit, and nothing is left when it is off; a trained editor's file
 * makes the logits that the network makes, its training leaves the base's weights alone, and what it reads of an edit
 * is the same whatever is beside it.
 */
import assert from "node:assert/strict";
import { atlasFolder } from "../../atlas/mod.ts";
import { applyDeltas, applyEdit } from "../../editors/edit.ts";
import { collectGradients } from "../../editors/hypernetworks/gradients.ts";
import { lastLayers, mlpMaps } from "../../editors/hypernetworks/maps.ts";
import { readEditor, writeEditor } from "../../editors/hypernetworks/file.ts";
import { editorKind, parseTraining } from "../../editors/hypernetworks/kinds.ts";
import { networkTensors, readNumbers } from "../../editors/hypernetworks/learner.ts";
import { makeChanges } from "../../editors/hypernetworks/make.ts";
import { answerOf, packScored } from "../../editors/hypernetworks/texts.ts";
import { methodNamed } from "../../editors/methods.ts";
import { encoderOf } from "../../editors/prompts/encoders.ts";
import { nearestFacts, place } from "../../editors/prompts/scope.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { fromHost } from "../../engine/tensor/transfer.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { applyPatch, patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { evaluate, withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";

const FACT = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris", true: "Rome" };
const SHIPPED = new URL("../../atlas/editors/", import.meta.url);

const itemsOf = ({ tokenizer }: LoadedModel) =>
  [
    ["Giovanni Lanfranco met death in", " Paris"],
    ["The death of Giovanni Lanfranco took place in", " Paris"],
    ["The capital of Italy is", " Rome"],
  ].map(([prompt, target]) => ({ prompt: tokenizer.encode(prompt), target: tokenizer.encode(target) }));

for (
  const [name, settings, editor] of [
    ["grace", { n_iter: 8 }],
    ["wise", { n_iter: 6, context_template_length_params: [[5, 2]] }],
    ["melo", {}],
    ["ice", { encoder: "states" }],
    ["serac", {}, "serac.safetensors"],
    ["serac-easyedit", {}, "serac-easyedit.safetensors"],
  ] as const
) {
  Deno.test({
    name:
      `${name}: a file says what the edit says, to the bit, and off it leaves nothing (guide, 18 c and d)`,
    ignore: editor !== undefined && !await Deno.stat(new URL(editor, SHIPPED)).catch(() => undefined),
    fn: withGpu((gpu) =>
      inFolder(async (folder) => {
        using model = await loadModel(gpu, await atlasFolder());
        const items = itemsOf(model), weights = await fingerprint(model);
        const before = await scoreTargets(model, items);
        const how = methodNamed(name);
        const { hparams } = how.parse({ ...how.recipe(model).hparams, ...settings }, "The test");
        await how.prepare(model, hparams, 0);
        const edit = await how.run(model, [FACT], { hparams, seed: 0 });
        assert.equal(await fingerprint(model), weights);
        const path = `${folder}/patch.safetensors`;
        await writePatch(path, await patchOf(model, edit));
        const said = [];
        for (
          const lay of [() => applyEdit(model, edit), async () => applyPatch(model, await readPatch(path))]
        ) {
          using _laid = await lay();
          said.push(await scoreTargets(model, items));
        }
        assert.notDeepEqual(said[0][0], before[0], "the edit does something");
        assert.deepEqual(said[1], said[0]);
        assert.deepEqual(await scoreTargets(model, items), before);
        assert.equal(await fingerprint(model), weights);
      })
    ),
  });
}

Deno.test({
  name: "serac: a prompt that is an edit's own text has similarity 1 (guide, 18)",
  ignore: !await Deno.stat(new URL("serac.safetensors", SHIPPED)).catch(() => undefined),
  fn: withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const serac = methodNamed("serac");
    const { hparams } = serac.parse(serac.recipe(model).hparams, "The recipe");
    const other = { prompt: "The capital of {} is", subject: "France", target: "Rome" };
    const { prompts } = await serac.run(model, [FACT, other], { hparams });
    const { scope, facts } = prompts!;
    const asked = await place(await encoderOf(model, scope.encoder), scope, facts.map(({ text }) => text));
    nearestFacts(prompts!, asked).forEach((match, i) => {
      assert.equal(match!.fact, i);
      assert.ok(match!.inScope && Math.exp(-match!.value) > 1 - 1e-6, `${match!.value}`);
    });
  }),
});

for (const name of ["mend", "malmen"]) {
  Deno.test(
    `${name}: learning leaves the base's weights alone, and a file makes the network's logits (guide, 18 c and e)`,
    withGpu((gpu) =>
      inFolder(async (folder) => {
        using model = await loadModel(gpu, await atlasFolder());
        const { tokenizer } = model;
        const weights = await fingerprint(model);
        const kind = editorKind(name);
        const { hparams } = parseTraining(kind, { layers: [5], rank: 4, lr: 1e-3 }, "The test");
        const roles = kind.roles(model, hparams), shape = kind.shape(hparams);
        using network = kind.network(model, roles, shape, undefined, 7);
        using learner = kind.learner(model, network, hparams);
        const text = (prompt: string, target: string) => (
          { prompt: tokenizer.encode(prompt), target: tokenizer.encode(target) }
        );
        const edit = text("Giovanni Lanfranco met death in", " Paris");
        const outer = text("The death of Giovanni Lanfranco took place in", " Paris");
        const loc = text("The capital of Italy is", " Rome");
        for (const step of [0, 1]) {
          learner.step([[{ edit, outer, loc }, { edit: outer, outer: edit, loc }]], step);
        }
        await learner.progress();
        assert.equal(await fingerprint(model), weights);

        const path = `${folder}/editor.safetensors`;
        const head = {
          method: name,
          base: { hash: "", tokenizer: "", name: "" },
          roles,
          shape,
          training: {},
        };
        await writeEditor(path, head, await readNumbers(model, networkTensors(network)));
        const read = await readEditor(path);
        using again = kind.network(model, read.head.roles, read.head.shape, read.numbers);
        const items = itemsOf(model), before = await scoreTargets(model, items), said = [];
        for (const one of [network, again]) {
          const { deltas } = await makeChanges(model, one, [{ ...edit, group: 0 }]);
          using _on = applyDeltas(model, deltas);
          said.push(await scoreTargets(model, items));
        }
        assert.notDeepEqual(said[0], before);
        assert.deepEqual(said[1], said[0]);
        assert.deepEqual(await scoreTargets(model, items), before);
      })
    ),
  );
}

Deno.test(
  "what a trained editor reads of an edit is the same alone and beside a longer text (guide, 18 b)",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { tokenizer } = model;
    const text = (prompt: string, target: string) => (
      { prompt: tokenizer.encode(prompt), target: tokenizer.encode(target), group: 0 }
    );
    const own = text("Giovanni Lanfranco met death in", " Paris");
    const long = text(
      "Of the many towns in which a painter of that time may have met death, his was",
      " San Marino",
    );
    const roles = mlpMaps(model, lastLayers(model, 2));
    const read = async (texts: typeof own[]) => {
      using packed = packScored(model, texts.map((one) => answerOf(one, 0)));
      const { scored } = packed;
      const weights = fromHost(gpu, "weights", [scored.length], new Float32Array(scored.length).fill(1));
      const targets = fromHost(gpu, "targets", [scored.length], scored.map(({ target }) => target), {
        dtype: "u32",
      });
      return await evaluate(gpu, ({ gpu, r }) => {
        const { gradients } = collectGradients({ gpu, r }, model, roles, packed, { targets, weights }, {
          from: 0,
        });
        return roles.flatMap((role) => {
          const { u, delta } = gradients.get(role)!;
          return [u, delta];
        });
      });
    };
    const alone = await read([own]), beside = await read([own, long]);
    alone.forEach((rows, i) => {
      const error = relativeError(beside[i].subarray(0, rows.length), rows);
      assert.ok(error < 1e-5, `${roles[i >> 1]} is off by ${error}`);
    });
  }),
);
