/** The training of editors: exact resume, a stop that stops, and runs that diverge. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { join } from "node:path";
import { editorBase } from "../../editors/hypernetworks/file.ts";
import { type EditorKind, editorKind, parseTraining } from "../../editors/hypernetworks/kinds.ts";
import { DivergedError } from "../../editors/hypernetworks/learner.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { writeTensor } from "../../engine/tensor/transfer.ts";
import { atlasSources } from "../../training/atlas.ts";
import { trainEditor, type TrainingReport } from "../../training/train.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "../cli/_run.ts";
import { inFolder } from "../engine/io/_data.ts";

const TINY = {
  layers: [5],
  rank: 4,
  accumulate_bs: 2,
  val_interval: 2,
  val_steps: 2,
  max_steps: 5,
  lr: 1e-4,
};

/** A small training of the embedded model. */
async function training(
  model: LoadedModel,
  out: string,
  { kind = editorKind("mend"), resume = false, onReport, ...changes }: {
    kind?: EditorKind;
    resume?: boolean;
    onReport?: (report: TrainingReport) => void;
  } & Record<string, unknown> = {},
) {
  const { train, validation } = await atlasSources();
  // Three edits judge the best one: the last validation is no part of these tests.
  const few = { ...validation, count: 3 };
  const { hparams } = parseTraining(kind, { ...TINY, ...changes }, "The test");
  const about = { name: "atlas", hash: train.hash, records: train.count };
  const config = {
    ...{ method: kind.name, base: await editorBase(model), data: about, validation: about, seed: 3 },
    ...{ hparams: { ...hparams, max_steps: 5 }, version: "test" },
  };
  return await trainEditor(model, {
    ...{ kind, hparams, config, train, validation: few, out, resume, saveEvery: 3, onReport },
  });
}

const bytes = (folder: string, name: string) => Deno.readFile(join(folder, `${name}.safetensors`));

for (
  const [name, own] of [
    ["mend", {}],
    ["ke", { lstm: 4, condition: 8, hidden: 4, warmup_updates: 1, margin_kl_max: 1e-7, margin_kl_min: 1e-9 }],
  ] as const
) {
  Deno.test(
    `${name}: a training that stopped on the way goes on to the very bits, and the base keeps its own`,
    withGpu((gpu) =>
      inFolder(async (folder) => {
        using model = await loadModel(gpu, ATLAS);
        const before = await fingerprint(model);
        const [whole, broken] = ["whole", "broken"].map((name) => join(folder, name));
        const settings = { ...own, kind: editorKind(name) };
        const { state } = await training(model, whole, settings);
        strictEqual(state.step, 5);
        strictEqual(await fingerprint(model), before);

        // Saved at step 3, and dead in step 5.
        const dying = training(model, broken, {
          ...settings,
          onReport: ({ step }) => {
            if (step === 4) throw new Error("dead");
          },
        });
        await rejects(dying, /dead/);
        await rejects(training(model, broken, settings), /already holds a training/);
        await rejects(
          training(model, broken, { ...settings, resume: true, accumulate_bs: 3 }),
          /a training of another hparams.accumulate_bs: 2 there, 3 now/,
        );
        await training(model, broken, { ...settings, resume: true });
        for (const name of ["editor", "training"]) {
          deepStrictEqual(await bytes(broken, name), await bytes(whole, name), name);
        }
      })
    ),
  );
}

Deno.test(
  "a training ends when no validation was better for a while",
  withGpu((gpu) =>
    inFolder(async (folder) => {
      using model = await loadModel(gpu, ATLAS);
      // A step size of nothing: the second validation cannot be better than the first.
      const kind = { ...editorKind("mend"), learner: still };
      const steps: number[] = [];
      const { state, ended } = await training(model, join(folder, "t"), {
        kind,
        early_stop_patience: 2,
        onReport: ({ step }) => steps.push(step),
      });
      strictEqual(ended, "no better validation");
      deepStrictEqual([state.step, state.best!.step], [4, 2]);
      deepStrictEqual(steps, [2, 4]);
    })
  ),
);

/** A learner that never moves. */
const still: EditorKind["learner"] = (model, network, hparams) =>
  editorKind("mend").learner(model, network, { ...hparams, lr: 0 });

Deno.test(
  "a training that diverges stops with step and cause, and the best editor so far stays",
  withGpu((gpu) =>
    inFolder(async (folder) => {
      using model = await loadModel(gpu, ATLAS);
      const out = join(folder, "t");
      const poisoned: EditorKind = {
        ...editorKind("mend"),
        learner(model, network, hparams) {
          const learner = editorKind("mend").learner(model, network, hparams);
          const step = learner.step.bind(learner);
          learner.step = (groups, index) => {
            const { tensor } = network.parameters.find(({ name }) => name === "edit_lrs")!;
            if (index === 2) writeTensor(gpu, tensor, Float32Array.of(Infinity, Infinity));
            step(groups, index);
          };
          return learner;
        },
      };
      await rejects(training(model, out, { kind: poisoned }), (error) => {
        ok(error instanceof DivergedError, `${error}`);
        const [told] = error.message.split("\n");
        ok(
          /^Training stopped at step 3: a loss is not finite; .*editor.safetensors keeps the one of step 2$/
            .test(told),
          told,
        );
        return true;
      });
      ok((await bytes(out, "editor")).length > 0);
    })
  ),
);
