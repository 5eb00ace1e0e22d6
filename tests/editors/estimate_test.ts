import assert from "node:assert/strict";
import { contextPlan } from "../../editors/contexts.ts";
import { estimateEdit } from "../../editors/estimate.ts";
import { romeTarget } from "../../editors/rome.ts";
import { optimiseTargets, type TargetRequest } from "../../editors/targets.ts";
import { loadModel } from "../../engine/models/load.ts";
import { withGpu } from "../_gpu.ts";
import { modelFolder, NO_TOKENIZER } from "../patches/_models.ts";
import { ATLAS } from "./_prompts.ts";

/** A prompt of so many tokens with the subject's last at `subjectLast`. */
const prompt = (tokens: number, subjectLast: number) => ({
  text: "",
  ids: Array.from({ length: tokens }, (_, i) => i + 1),
  subjectLast,
});

Deno.test(
  "estimateEdit() counts each row once below the edit and the live rows above when prompts are ragged",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const request: TargetRequest = {
      prompts: [prompt(6, 2), prompt(11, 7)],
      target: [1, 2, 3],
      kl: prompt(5, 2),
    };
    const estimate = estimateEdit(model.dims, request, { layer: 1, steps: 10 });
    // Two more target tokens a prompt are fed; the KL prompt ends at its subject.
    assert.equal(estimate.prepareRows, 8 + 13 + 3);
    assert.equal(estimate.stepRows, 6 + 6 + 1);
    assert.equal(estimate.lossRows, 3 + 3 + 1);
    const twice = estimateEdit(model.dims, request, { layer: 1, steps: 20 });
    const once = estimateEdit(model.dims, request, { layer: 1, steps: 0 });
    assert.equal(twice.flops - estimate.flops, estimate.flops - once.flops);
    const lower = estimateEdit(model.dims, request, { layer: 0, steps: 10 });
    assert.ok(lower.flops > estimate.flops, "more layers above the edit");
    assert.ok(lower.workBytes > estimate.workBytes);
    // Rows pass two layers once, and the last one only those that are not live; then 10 steps of it, there and back.
    const { width: D, inner: F } = model.dims;
    const rows = 2 * 2 * 24 + 2 * (24 - 13) + 10 * 2 * 2 * 13;
    const plain = estimateEdit(model.dims, request, { layer: 1, steps: 10, gated: false });
    assert.equal(estimate.flops - plain.flops, rows * D * F, "a gated MLP has one map more");
  }),
);

Deno.test(
  "estimateEdit() comes within a third of the memory that an edit of atlas takes",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const request = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: " Paris" };
    const target = romeTarget(model, request, contextPlan([[5, 10], [10, 10]]));
    const { workBytes } = estimateEdit(model.dims, target, { layer: 1, steps: 1 });
    const before = gpu.memory.now;
    gpu.memory.resetPeak();
    await optimiseTargets(model, [target], {
      layer: 1,
      v_num_grad_steps: 1,
      v_lr: 0.5,
      v_weight_decay: 0.5,
      clamp_norm_factor: 4,
      kl_factor: 0.0625,
    });
    const taken = gpu.memory.peak - before;
    assert.ok(workBytes > taken / 1.34 && workBytes < taken * 1.34, `${workBytes} for ${taken}`);
  }),
);
