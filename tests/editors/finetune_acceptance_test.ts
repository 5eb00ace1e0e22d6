/** What must hold of fine-tuning, LoRA and AdaLoRA whoever wrote them (guide section 18, the line of FT and LoRA). */
import assert from "node:assert/strict";
import { applyDeltas, type WeightDelta } from "../../editors/edit.ts";
import { projectionRoles, trainTensors } from "../../editors/finetune/dense.ts";
import {
  adaLora,
  type AdaLoraOptions,
  adaLoraStart,
  lora,
  loraStart,
  targetMaps,
} from "../../editors/finetune/lora.ts";
import { type Adaptation, type Example, train, type TrainOptions } from "../../editors/finetune/train.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import type { Model } from "../../engine/models/model.ts";
import { currentTensor } from "../../engine/models/replace.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";
import { merged } from "./_merged.ts";

const IDS = [[5, 17, 60, 2, 44, 90], [80, 1, 33]];
/** Of different lengths, so that a padded batch would show. */
const EXAMPLES: Example[] = [
  { prompt: [11, 40, 41, 7, 8], target: [33, 72] },
  { prompt: [50, 13, 14], target: [81] },
];
const ONE_TOKEN: Example[] = EXAMPLES.map(({ prompt, target }) => ({ prompt, target: target.slice(0, 1) }));
const OPTIONS: TrainOptions = {
  objective_optimization: "target_new",
  num_steps: 4,
  lr: 1e-2,
  weight_decay: 0,
  batch_size: 2,
  threshold: 0,
};
const RANK = 4;
const ADALORA: AdaLoraOptions = {
  ...{ init_r: 6, target_r: 2, tinit: 2, tfinal: 3, deltaT: 1, num_steps: 12 },
  ...{ lora_alpha: 12, beta1: 0.85, beta2: 0.85, orth_reg_weight: 0.5 },
};

const open = (gpu: Gpu, name: string) => loadModel(gpu, modelFolder(name), { tokenizer: false });
const attention = (model: Model) =>
  targetMaps(model, model.config.type === "gpt2" ? ["c_attn"] : ["q_proj", "v_proj"], []);

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  Deno.test(
    `LoRA on ${name} begins as the base, to the bit, and says merged what it says beside the weights`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const plain = await logitsOf(model, IDS);
      using adapters = lora(model, loraStart(attention(model), RANK, 1), { rank: RANK, lora_alpha: 8 });
      {
        using _start = applyDeltas(model, await adapters.deltas());
        assert.deepEqual(await logitsOf(model, IDS), plain);
      }
      await train(model, EXAMPLES, adapters, OPTIONS);
      const deltas = await adapters.deltas();
      const read = async (deltas: WeightDelta[]) => {
        using _on = applyDeltas(model, deltas);
        return await logitsOf(model, IDS);
      };
      const beside = await read(deltas), inside = await read(deltas.map((delta) => merged(model, delta)));
      assert.ok(relativeError(beside, plain) > 1e-2, "training did something");
      // The same sums in another order.
      assert.ok(relativeError(inside, beside) < 1e-5);
      assert.deepEqual(await logitsOf(model, IDS), plain);
    }),
  );

  Deno.test(
    `AdaLoRA on ${name}: the task's first gradient reaches singular values only`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const starts = adaLoraStart(attention(model), ADALORA.init_r, 1);
      const step = async (orth_reg_weight: number) => {
        using adapters = adaLora(model, starts, { ...ADALORA, orth_reg_weight });
        await train(model, EXAMPLES, adapters, { ...OPTIONS, num_steps: 1 });
        return await readTensors(gpu, ...adapters.parameters) as Float32Array[];
      };
      const initial = starts.flatMap(({ left, right }) => [left, right]);
      const [values, ...factors] = await step(0);
      assert.ok(values.every((x) => x !== 0), "every singular value has moved");
      // Adam moves whatever has any gradient at all by its whole rate.
      assert.deepEqual(factors, initial);
      const [, ...pulled] = await step(0.5);
      pulled.forEach((factor, i) => assert.notDeepEqual(factor, initial[i], "the penalty does reach them"));
    }),
  );

  Deno.test(
    `AdaLoRA on ${name} ends with as many ranks as the target has, and not the same everywhere`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const maps = attention(model);
      const ranks = async (target_r: number) => {
        const options = { ...ADALORA, target_r };
        using adapters = adaLora(model, adaLoraStart(maps, ADALORA.init_r, 1), options);
        await train(model, EXAMPLES, adapters, { ...OPTIONS, num_steps: ADALORA.num_steps });
        return (await adapters.deltas()).map(({ rank }) => rank);
      };
      const sum = (all: number[]) => all.reduce((a, b) => a + b, 0);
      const few = await ranks(2);
      assert.equal(sum(few), 2 * maps.length);
      assert.ok(few.length < maps.length || new Set(few).size > 1, `ranks ${few}`);
      assert.equal(sum(await ranks(ADALORA.init_r)), ADALORA.init_r * maps.length);
    }),
  );

  Deno.test(
    `a bound holds every weight of ${name} after every update, to the last bit`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const [role] = projectionRoles(model, [1]);
      const bound = Math.fround(2e-3);
      const stored = currentTensor(model, role);
      assert.equal(stored.dtype, "f32");
      const [start] = await readTensors(gpu, stored) as Float32Array[];
      let at = 0;
      for (let num_steps = 1; num_steps <= 5; num_steps++) {
        using adaptation = trainTensors(model, [role], bound);
        await train(model, EXAMPLES, adaptation, { ...OPTIONS, num_steps });
        const [now] = await readTensors(gpu, ...adaptation.parameters) as Float32Array[];
        now.forEach((x, i) => {
          assert.ok(
            x >= Math.fround(start[i] - bound) && x <= Math.fround(start[i] + bound),
            `step ${num_steps}`,
          );
          if (x === Math.fround(start[i] + bound)) at++;
        });
      }
      // A rate of five bounds: nearly everything is pushed onto the edge.
      assert.ok(at > start.length, "the bound is met");
    }),
  );

  Deno.test(
    `the historic objective and teacher forcing are one for targets of one token: ${name}`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const run = async (
        examples: Example[],
        objective_optimization: TrainOptions["objective_optimization"],
      ) => {
        using tensors = trainTensors(model, projectionRoles(model, [0]));
        const adaptation: Adaptation = tensors;
        const { losses } = await train(model, examples, adaptation, { ...OPTIONS, objective_optimization });
        return { losses, changes: await tensors.changes() };
      };
      assert.deepEqual(await run(ONE_TOKEN, "prompt_last"), await run(ONE_TOKEN, "target_new"));
      const [last, forced] = [await run(EXAMPLES, "prompt_last"), await run(EXAMPLES, "target_new")];
      assert.ok(Math.abs(last.losses[0][0] - forced.losses[0][0]) > 1e-3, "of two tokens they are two");
      assert.equal(last.losses[0][1], forced.losses[0][1]);
    }),
  );
}
