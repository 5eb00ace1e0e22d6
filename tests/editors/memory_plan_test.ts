/** What methods say beforehand that they will hold, against what they then held. */
import assert from "node:assert/strict";
import { workBytesOf } from "../../editors/estimate.ts";
import { requireMemory, trainedTensors } from "../../editors/finetune/memory.ts";
import { allRoles } from "../../editors/finetune/dense.ts";
import { METHODS } from "../../editors/methods.ts";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import { sizeOf } from "../../engine/tensor/tensor.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "./_prompts.ts";

const REQUESTS = ["Danielle Darrieux", "Jean Cocteau"].map((subject) => ({
  prompt: "The first language of {} is",
  ...{ subject, target: "English", true: "French" },
}));

for (
  const [name, changes] of [
    ["ft-full", { num_steps: 1 }],
    ["ft-m", { num_steps: 1 }],
    ["lora", { num_steps: 1, rank: 64 }],
    ["adalora", { num_steps: 4, tinit: 1, tfinal: 1, init_r: 64 }],
    ["kn", { steps: 8 }],
  ] as const
) {
  Deno.test(
    `${name} holds what its plan says, within a third`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, ATLAS);
      const method = METHODS.find((m) => m.name === name)!;
      const { hparams } = method.parse({ ...method.recipe(model).hparams, ...changes }, "It");
      const plan = method.plan(model, REQUESTS, hparams);
      const planned = workBytesOf(model.dims, plan) + (plan.training?.deviceBytes ?? 0);
      await method.prepare(model, hparams, 0);
      gpu.memory.trim();
      const before = gpu.memory.now;
      gpu.memory.resetPeak();
      await method.run(model, REQUESTS, { hparams, seed: 0 });
      const held = gpu.memory.peak - before;
      assert.ok(held / planned < 4 / 3 && planned / held < 4 / 3, `held ${held}, planned ${planned}`);
    }),
  );
}

Deno.test(
  "requireMemory() refuses a training that does not fit, with what it needs and what there is",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const all = trainedTensors(model, allRoles(model));
    const tables = [...model.tensors].filter(([role]) => role !== "rotary").map(([, t]) => t);
    const maps = [...model.weights.values()].filter(({ matrix }) => !tables.includes(matrix));
    const counted = [...tables, ...maps.flatMap(({ matrix, bias }) => bias ? [matrix, bias] : [matrix])];
    assert.equal(all.numbers, counted.reduce((sum, { shape }) => sum + sizeOf(shape), 0));
    assert.equal(all.deviceBytes, 16 * all.numbers);
    const check = (available?: number) => requireMemory(model, "ft-full", all, 0, available);
    check(20 * all.numbers);
    assert.throws(() => check(20 * all.numbers - 1), (error: InputError) => {
      assert.match(
        error.message,
        /^ft-full needs 1\d\d\.\d MiB of memory to train 5,\d{3},\d{3} numbers of .*, and 1\d\d\.\d MiB are free$/,
      );
      return error instanceof InputError && /fewer layers/.test(error.hint!);
    });
  }),
);
