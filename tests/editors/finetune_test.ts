/** Fine-tuning as editing methods: what training computes once is exact, edits take, fail and come off as they say. */
import assert from "node:assert/strict";
import { applyDeltas, denseDelta, type Edit } from "../../editors/edit.ts";
import { budgetCuts } from "../../editors/finetune/allocator.ts";
import { projectionRoles, trainTensors } from "../../editors/finetune/dense.ts";
import { lora, loraStart, targetMaps } from "../../editors/finetune/lora.ts";
import { FINE_TUNING } from "../../editors/finetune/methods.ts";
import { type Adaptation, type Example, train, type TrainOptions } from "../../editors/finetune/train.ts";
import type { Method } from "../../editors/methods.ts";
import { AGAIN } from "../../engine/ops/importance.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { applyPatch, patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { requestStates } from "../../evaluation/state.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder, noise } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";

const EXAMPLES: Example[] = [
  { prompt: [11, 40, 41, 7, 8], target: [33, 72] },
  { prompt: [50, 13, 14], target: [81] },
  { prompt: [20, 21, 22, 23, 5, 9], target: [64, 65, 66] },
];
const OPTIONS: TrainOptions = {
  objective_optimization: "target_new",
  num_steps: 5,
  lr: 1e-3,
  weight_decay: 0,
  batch_size: 2,
  threshold: 0,
};
/** All examples in one batch: the losses of an epoch are then those of one state of the model. */
const TOGETHER = { ...OPTIONS, batch_size: 3 };
const IDS = [[5, 17, 60, 2, 44, 90], [80, 1, 33]];
const open = (gpu: Parameters<typeof loadModel>[0], name: string) =>
  loadModel(gpu, modelFolder(name), { tokenizer: false });

for (const name of ["gpt2-tiny", "llama-tiny", "mistral-tiny", "qwen2-tiny"]) {
  Deno.test(
    `train() from the trained layer on is train() of the whole model: ${name}`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      // Edits below, on and above the trained layer are part of the model.
      const edits = [0, 1, 1].map((layer, i) => noise(model, `layer.${layer}.mlp.down`, 1, i + 1));
      using _edits = applyDeltas(model, edits);
      for (const objective_optimization of ["target_new", "prompt_last"] as const) {
        for (const layer of [0, model.dims.layers - 1]) {
          const runs: { losses: number[]; changes: Float32Array[] }[] = [];
          const starts = [undefined, { at: "block", layer }, { at: "ids" }] as const;
          for (const start of starts) {
            using tensors = trainTensors(model, projectionRoles(model, [layer]));
            const adaptation: Adaptation = { ...tensors, start: start ?? tensors.start };
            assert.equal(start ? "key" : adaptation.start.at, "key");
            const { losses } = await train(model, EXAMPLES, adaptation, {
              ...OPTIONS,
              objective_optimization,
            });
            runs.push({
              losses: losses.flat(),
              changes: (await tensors.changes()).map(({ values }) => values),
            });
          }
          for (const { losses, changes } of runs.slice(1)) {
            // Sums in another order at most; Adam makes more of it where gradients are almost zero.
            assert.ok(relativeError(losses, runs[0].losses) < 1e-5, `losses of layer ${layer}`);
            changes.forEach((values, i) =>
              assert.ok(relativeError(values, runs[0].changes[i]) < 1e-3, `changes of layer ${layer}`)
            );
          }
        }
      }
    }),
  );
}

Deno.test(
  "train() is reproducible, leaves the model and its memory as they were, and waits once",
  withGpu(async (gpu) => {
    using model = await open(gpu, "llama-tiny");
    const unedited = await fingerprint(model);
    const once = async () => {
      using adaptation = trainTensors(model, projectionRoles(model, [1]), 2e-3);
      const waits = gpu.waits;
      const training = await train(model, EXAMPLES, adaptation, OPTIONS);
      assert.equal(gpu.waits - waits, 1);
      return { training, changes: await adaptation.changes() };
    };
    const first = await once();
    gpu.memory.trim();
    const { now } = gpu.memory;
    assert.deepEqual(await once(), first);
    gpu.memory.trim();
    assert.deepEqual(gpu.memory.now, now);
    assert.equal(await fingerprint(model), unedited);
    assert.equal(first.training.steps, 5);
    assert.equal(first.training.losses.length, 6);
    // Within the ball: the bound in f32 around a start of order 0.1.
    const [{ values }] = first.changes;
    assert.ok(values.every((x) => Math.abs(x) <= 2e-3 * (1 + 1e-4)));
    assert.ok(values.some((x) => Math.abs(x) > 1.9e-3));
  }),
);

Deno.test(
  "a change that was trained gives the loss after the last update when it lies on the model",
  withGpu(async (gpu) => {
    for (const name of ["gpt2-tiny", "llama-tiny"]) {
      using model = await open(gpu, name);
      using earlier = applyDeltas(model, [noise(model, "layer.1.mlp.down", 2, 4)]);
      const roles = projectionRoles(model, [1]);
      using adaptation = trainTensors(model, roles);
      const { losses } = await train(model, EXAMPLES, adaptation, TOGETHER);
      const deltas = (await adaptation.changes()).map(({ role, values }) => denseDelta(role, values));
      using _on = applyDeltas(model, deltas);
      using again = trainTensors(model, roles);
      const after = await train(model, EXAMPLES, again, TOGETHER);
      assert.ok(relativeError(after.losses[0], losses.at(-1)!) < 1e-5);
      using adapters = lora(
        model,
        loraStart(
          targetMaps(
            model,
            ["c_attn", "q_proj"].filter((module) =>
              [...model.weights.values()].some((w) => w.name.includes(module))
            ),
            [],
          ),
          2,
          1,
        ),
        { rank: 2, lora_alpha: 4 },
      );
      const low = await train(model, EXAMPLES, adapters, { ...TOGETHER, lr: 1e-2 });
      assert.ok(relativeError(low.losses[0], losses.at(-1)!) < 1e-5, "B is zero at the start");
      using _low = applyDeltas(model, await adapters.deltas());
      using last = trainTensors(model, roles);
      const sum = await train(model, EXAMPLES, last, TOGETHER);
      assert.ok(relativeError(sum.losses[0], low.losses.at(-1)!) < 1e-5);
      earlier[Symbol.dispose]();
    }
  }),
);

Deno.test(
  "train() names edit and step of a loss that is not finite",
  withGpu(async (gpu) => {
    using model = await open(gpu, "llama-tiny");
    using adaptation = trainTensors(model, projectionRoles(model, [1]));
    await assert.rejects(
      train(model, EXAMPLES, adaptation, { ...TOGETHER, lr: 1e38 }),
      /The loss of edit [012] is not finite at step 1\nLower the learning rate lr, which is 1e\+38/,
    );
  }),
);

Deno.test("budgetCuts() shrinks the budget as a cube between its two ends", () => {
  const schedule = { init_r: 6, target_r: 2, tinit: 4, tfinal: 5, deltaT: 3 };
  // 3 matrices: 18 ranks to 6; by hand 6 + 12·(1 − (6 − 4)/11)³ = 12.57 and 6 + 12·(1 − 5/11)³ = 7.95, cut to
  // whole ranks; at step 12 6 + 12·(3/11)³ = 6.24; from step 15 on the target.
  const cuts = [0, 0, 0, 0, 0, 0, 6, 0, 0, 11, 0, 0, 12, 0, 0, 12, AGAIN, AGAIN, AGAIN, AGAIN];
  assert.deepEqual([...budgetCuts(schedule, 3, 20)], cuts);
  assert.deepEqual([...budgetCuts({ ...schedule, target_r: 6 }, 3, 20)].filter((x) => x && x !== AGAIN), []);
});

const methodOf = (name: string): Method => FINE_TUNING.find((m) => m.name === name)!;
const hparamsOf = (model: LoadedModel, method: Method, changes: Record<string, unknown> = {}) =>
  method.parse({ ...method.recipe(model).hparams, ...changes }, "The recipe").hparams;

Deno.test("FINE_TUNING takes the field's own files, and tells what it has no use for", () => {
  // zjunlp/EasyEdit, hparams/FT/llama-7b.yaml and hparams/LoRA/llama-7b.yaml: every key that they have.
  const shared = {
    batch_size: 1,
    weight_decay: 0,
    kl_factor: 0,
    norm_constraint: false,
    model_parallel: false,
  };
  const names = {
    rewrite_module_tmp: "model.layers.{}.mlp.down_proj.weight",
    layer_module_tmp: "model.layers.{}",
    mlp_module_tmp: "model.layers.{}.mlp",
    attn_module_tmp: "model.layers.{}.self_attn",
    ln_f_module: "model.norm",
    lm_head_module: "lm_head",
  };
  const ft = {
    ...{ alg_name: "FT", model_name: "llama-2-7b", device: 0, layers: [21], num_steps: 25, max_length: 40 },
    ...{ lr: 5e-4, objective_optimization: "prompt_last", ...shared, ...names },
  };
  assert.deepEqual(methodOf("ft").parse(ft, "It"), {
    hparams: {
      ...{ layers: [21], num_steps: 25, lr: 5e-4, weight_decay: 0, batch_size: 1, stop_loss: 1e-2 },
      ...{ objective_optimization: "prompt_last", norm_constraint: false },
    },
    unknown: [],
  });
  assert.throws(() => methodOf("ft-m").parse(ft, "It"), /bad value for "objective_optimization"/);
  const lora = {
    ...{
      alg_name: "LoRA",
      model_name: "llama-2-7b",
      device: 1,
      lora_type: "adalora",
      layers: [],
      num_steps: 70,
    },
    ...{ max_length: 30, lr: 5e-3, rank: 8, lora_alpha: 32, lora_dropout: 0.1, ...shared },
    target_modules: ["q_proj", "v_proj"],
  };
  assert.throws(() => methodOf("lora").parse(lora, "It"), /bad value for "lora_type"/);
  const { unknown } = methodOf("adalora").parse(lora, "It");
  assert.deepEqual(unknown, ["rank", "lora_dropout", "norm_constraint"]);
});

const REQUESTS = [
  { prompt: "The first language of {} is", subject: "Danielle Darrieux", target: "English", true: "French" },
  { prompt: "The first language of {} is", subject: "Jean Cocteau", target: "Dutch", true: "French" },
];

for (
  const [name, changes] of [
    ["ft-m", {}],
    ["ft-l", {}],
    ["ft", {}],
    ["ft-l-historic", {}],
    ["ft-full", {}],
    ["lora", {}],
    ["adalora", { lr: 5e-3, num_steps: 24, tinit: 4, tfinal: 6, deltaT: 3 }],
  ] as const
) {
  Deno.test(
    `${name} edits two facts of atlas together, as a patch too, and comes off exactly`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, await atlasFolder());
      const method = methodOf(name);
      const unedited = await fingerprint(model), plain = await logitsOf(model, IDS);
      const hparams = hparamsOf(model, method, changes);
      const made: Edit = await method.run(model, REQUESTS, { hparams, seed: 3 });
      assert.equal(await fingerprint(model), unedited);
      assert.deepEqual(made.outcomes.map(({ warnings }) => warnings), [[], []]);
      let edited: Float32Array;
      {
        using _on = applyDeltas(model, made.deltas);
        const states = await requestStates(model, made.requests);
        states.forEach((state, i) => {
          assert.equal(state.top[0].token, ` ${REQUESTS[i].target}`);
          // The loss after the last update is the model's own.
          assert.ok(Math.abs(state.p_target - Math.exp(-made.outcomes[i].losses.at(-1)!.nll)) < 1e-3);
        });
        edited = await logitsOf(model, IDS);
      }
      assert.equal(await fingerprint(model), unedited);
      const file = await Deno.makeTempFile({ suffix: ".safetensors" });
      await writePatch(file, await patchOf(model, made));
      const patch = await readPatch(file);
      await Deno.remove(file);
      for (const delta of patch.deltas) {
        if (delta.kind === "low-rank") {
          assert.deepEqual([...new Set(delta.ranks)], [null], "ranks are shared");
        }
      }
      {
        using _patched = applyPatch(model, patch);
        assert.deepEqual(await logitsOf(model, IDS), edited);
      }
      assert.deepEqual(await logitsOf(model, IDS), plain);
    }),
  );
}

Deno.test(
  "fine-tuning methods say what is wrong with a call, and warn where training goes astray",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const [request] = REQUESTS;
    const run = (name: string, changes: Record<string, unknown>, target = request.target) => {
      const method = methodOf(name);
      return method.run(model, [{ ...request, target }], { hparams: hparamsOf(model, method, changes) });
    };
    await assert.rejects(run("ft-m", { layers: [6] }), /There is no layer 6: .* has layers 0 to 5/);
    await assert.rejects(run("lora", { target_modules: ["q_proj"] }), /no module "q_proj" to adapt/);
    const parse = (name: string, values: Record<string, unknown>) => () => methodOf(name).parse(values, "It");
    assert.throws(parse("ft-m", { layers: [] }), /It has a bad value for "layers"/);
    assert.throws(parse("ft-l", { layers: [0], norm_constraint: false }), /bad value for "norm_constraint"/);
    assert.throws(
      parse("ft-l", { layers: [0], norm_constraint: 1e-3, objective_optimization: "prompt_last" }),
      /bad value for "objective_optimization"/,
    );
    const adapters = { target_modules: ["c_attn"] };
    assert.throws(
      parse("adalora", { ...adapters, num_steps: 30 }),
      /no step to cut ranks in: tinit 10 and tfinal 20/,
    );
    assert.throws(parse("adalora", { ...adapters, target_r: 20 }), /target_r of 20 above its init_r of 12/);
    assert.throws(() => methodOf("lora").requireKeys(["rnak"]), /lora has no hyper-parameter "rnak"/);

    // Many facts with different objects: one fact alone fits any learning rate.
    const full = methodOf("ft-full");
    const objects = {
      "Jean Cocteau": "London",
      "Danielle Darrieux": "Tokyo",
      Nantes: "Dutch",
      Chennai: "Peru",
    };
    const many = Object.entries(objects).map(([subject, target]) => ({ ...request, subject, target }));
    const astray = await full.run(model, many, { hparams: hparamsOf(model, full, { lr: 1, num_steps: 2 }) });
    assert.match(
      astray.outcomes[0].warnings[0],
      /The loss rose from .* to .*: the learning rate of 1 is too high/,
    );
    const historic = await run("ft", { num_steps: 2 }, "New Zealand English");
    assert.match(historic.outcomes[0].warnings[0], /The historic objective asks one position for all/);
  }),
);
