/** Target optimisation: guide section 17, acceptance tests 1 and 2, and what makes it one replayed plan. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { optimiseTargets, type TargetOptions } from "../../editors/targets.ts";
import { applyDeltas } from "../../editors/edit.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import type { Storage } from "../../engine/gpu/memory.ts";
import type { Recorder } from "../../engine/gpu/recorder.ts";
import { loadModel } from "../../engine/models/load.ts";
import { tensor } from "../../engine/models/model.ts";
import { copy } from "../../engine/ops/elementwise.ts";
import { createTensor, freeTensor, type Tensor } from "../../engine/tensor/tensor.ts";
import { readF32, writeBytes } from "../../engine/tensor/transfer.ts";
import { withGpu } from "../_gpu.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder, noise } from "../patches/_models.ts";
import { fullStep, norms, OPTIONS, REQUESTS } from "./_targets.ts";

const open = (gpu: Gpu, name: string) => loadModel(gpu, modelFolder(name), { tokenizer: false });

/** Runs with every recorder that the device hands out passed through `see` first. */
async function watching<T>(gpu: Gpu, see: (r: Recorder) => void, body: () => Promise<T>): Promise<T> {
  const make = gpu.recorder.bind(gpu);
  gpu.recorder = () => {
    const r = make();
    see(r);
    return r;
  };
  try {
    return await body();
  } finally {
    delete (gpu as { recorder?: unknown }).recorder;
  }
}

/** Optimises, and returns δ's whole gradient as the last update of Adam got it. */
async function lastGradient(gpu: Gpu, shape: number[], body: () => Promise<unknown>): Promise<Float32Array> {
  const kept = createTensor(gpu, "last gradient", shape);
  const see = (r: Recorder) => {
    const dispatch = r.dispatch.bind(r);
    r.dispatch = (kernel, given) => {
      if (kernel.name === "adam") {
        const storage: Storage = given.bind.grad;
        const shards = [{ storage, row: 0, rows: shape[0] }];
        const grad: Tensor = { label: "gradient", shape, dtype: "f32", shards };
        copy({ gpu, r }, grad, kept);
      }
      dispatch(kernel, given);
    };
  };
  await watching(gpu, see, body);
  const gradient = await readF32(gpu, kept);
  freeTensor(gpu, kept);
  return gradient;
}

for (const name of ["gpt2-tiny", "llama-tiny", "mistral-tiny"]) {
  const layer = 0;
  const options = { ...OPTIONS, layer };

  Deno.test(
    `optimiseTargets() starts at KL 0, decay 0 and the model's own NLL on ${name}`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const targets = await optimiseTargets(model, REQUESTS, options);
      for (const [e, { prompts, target }] of REQUESTS.entries()) {
        const [first] = targets[e].losses;
        ok(Math.abs(first.kl) <= 1e-6, `KL ${first.kl}`);
        strictEqual(first.wd, 0);
        const sequences = prompts.map((p) => [...p.ids, ...target.slice(0, -1)]);
        const z = await logitsOf(model, sequences);
        const { vocab } = model.dims;
        let start = 0, nll = 0;
        sequences.forEach((ids, i) => {
          target.forEach((id, t) => {
            const at = (start + prompts[i].ids.length - 1 + t) * vocab;
            const row = z.subarray(at, at + vocab);
            const lse = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
            nll += (lse - row[id]) / (target.length * prompts.length);
          });
          start += ids.length;
        });
        // Logits of order 1 and a log of their sum: a few roundings of 1e-6 at most.
        ok(Math.abs(first.nll - nll) <= 5e-6 * nll, `NLL ${first.nll}, expected ${nll}`);
      }
    }),
  );

  Deno.test(
    `optimiseTargets() has the gradient of a full forward and backward pass on ${name}`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const { width } = model.dims;
      // The gradient of the third update, at the δ of two: KL and decay take part.
      const at = await optimiseTargets(model, REQUESTS, { ...options, v_num_grad_steps: 3 });
      const four = { ...options, v_num_grad_steps: 4 };
      const gradients = await lastGradient(gpu, [REQUESTS.length, width], async () => {
        const targets = await optimiseTargets(model, REQUESTS, four);
        targets.forEach((t) => strictEqual(t.losses.length, 4));
      });
      for (const [e, { delta, v0, losses }] of at.entries()) {
        const full = await fullStep(model, REQUESTS[e], delta, options);
        const { delta: size } = norms(at[e]);
        const decay = options.v_weight_decay / Math.hypot(...v0) ** 2;
        const expected = full.gradient.map((g, i) => g + decay * delta[i] / size);
        const error = relativeError(gradients.subarray(e * width, (e + 1) * width), expected);
        ok(error <= 1e-5, `The gradient of edit ${e} is off by ${error} relative`);
        const last = losses[2];
        ok(Math.abs(last.nll - full.nll) <= 1e-5 * Math.max(1, full.nll), `NLL ${last.nll}, ${full.nll}`);
        ok(Math.abs(last.kl - full.kl) <= 1e-5 * Math.max(1, full.kl), `KL ${last.kl}, ${full.kl}`);
        ok(full.kl > 1e-3, `KL is ${full.kl}: too small to be tested`);
        ok(Math.abs(last.wd - decay * size) <= 1e-5 * decay * size, `decay ${last.wd}, ${decay * size}`);
      }
    }),
  );
}

Deno.test(
  "optimiseTargets() gives each edit of a batch the δ that it gets alone",
  withGpu(async (gpu) => {
    // Not the last layer: an early subject's δ has no gradient there but rounding, which Adam makes large.
    const options = { ...OPTIONS, layer: 0 };
    for (const name of ["gpt2-tiny", "mistral-tiny"]) {
      using model = await open(gpu, name);
      const together = await optimiseTargets(model, REQUESTS, options);
      for (const [e, request] of REQUESTS.entries()) {
        const [alone] = await optimiseTargets(model, [request], options);
        const error = relativeError(together[e].delta, alone.delta);
        ok(error <= 1e-4, `δ of edit ${e} on ${name} is off by ${error}`);
        strictEqual(together[e].keys.length, request.prompts.length);
        together[e].keys.forEach((key, i) => ok(relativeError(key, alone.keys[i]) <= 1e-5, `key ${i}`));
        together[e].outputs.forEach((v, i) => ok(relativeError(v, alone.outputs[i]) <= 1e-5, `output ${i}`));
        deepStrictEqual(together[e].v0, together[e].outputs[0]);
      }
    }
  }),
);

Deno.test(
  "optimiseTargets() works in the last layer, where no layer is left to run",
  withGpu(async (gpu) => {
    for (const name of ["gpt2-tiny", "llama-tiny"]) {
      using model = await open(gpu, name);
      const options: TargetOptions = { ...OPTIONS, layer: model.dims.layers - 1, v_num_grad_steps: 3 };
      const at = await optimiseTargets(model, REQUESTS, { ...options, v_num_grad_steps: 2 });
      const { width } = model.dims;
      const gradients = await lastGradient(gpu, [REQUESTS.length, width], async () => {
        const targets = await optimiseTargets(model, REQUESTS, options);
        targets.forEach(({ losses }) => strictEqual(losses.length, 3));
      });
      for (const [e, target] of at.entries()) {
        const full = await fullStep(model, REQUESTS[e], target.delta, options);
        const { delta, v0 } = norms(target);
        const decay = options.v_weight_decay / v0 ** 2;
        const expected = full.gradient.map((g, i) => g + decay * target.delta[i] / delta);
        const error = relativeError(gradients.subarray(e * width, (e + 1) * width), expected);
        ok(error <= 1e-5, `The gradient of edit ${e} on ${name} is off by ${error}`);
      }
    }
  }),
);

Deno.test(
  "optimiseTargets() keeps δ within its ball and takes one update less than steps",
  withGpu(async (gpu) => {
    using model = await open(gpu, "gpt2-tiny");
    const [none] = await optimiseTargets(model, REQUESTS, { ...OPTIONS, v_num_grad_steps: 1 });
    deepStrictEqual(none.delta, new Float32Array(model.dims.width));
    strictEqual(none.losses.length, 1);
    // Adam's first update is lr·sign(g) wherever g is not far below its epsilon of 1e-8.
    const [one] = await optimiseTargets(model, REQUESTS, { ...OPTIONS, v_num_grad_steps: 2 });
    ok(one.delta.every((d) => Math.abs(Math.abs(d) - 0.5) < 1e-4), `${one.delta}`);
    const clamped = await optimiseTargets(model, REQUESTS, { ...OPTIONS, clamp_norm_factor: 0.5 });
    for (const target of clamped) {
      const { delta, v0 } = norms(target);
      ok(Math.abs(delta - 0.5 * v0) <= 1e-5 * v0, `‖δ‖ is ${delta}, half of ‖v0‖ is ${v0 / 2}`);
    }
  }),
);

Deno.test(
  "optimiseTargets() stops each edit below the threshold while the others go on",
  withGpu(async (gpu) => {
    using model = await open(gpu, "llama-tiny");
    const options = { ...OPTIONS, v_num_grad_steps: 12 };
    const free = await optimiseTargets(model, REQUESTS, { ...options, threshold: -1 });
    const totals = free.map(({ losses }) => losses.map(({ nll, kl, wd }) => nll + kl + wd));
    // A threshold that one edit meets in the middle, and that another meets elsewhere or never.
    const threshold = totals[0][4] * 1.0001;
    const ends = totals.map((t) => t.findIndex((loss) => loss < threshold));
    ok(new Set(ends).size > 1, `The test wants different ends: ${ends}`);
    const stopped = await optimiseTargets(model, REQUESTS, { ...options, threshold });
    for (const [e, target] of stopped.entries()) {
      const steps = ends[e] < 0 ? options.v_num_grad_steps : ends[e] + 1;
      strictEqual(target.losses.length, steps, `steps of edit ${e}`);
      deepStrictEqual(target.losses, free[e].losses.slice(0, steps));
      const shorter = { ...options, threshold: -1, v_num_grad_steps: steps };
      deepStrictEqual(target.delta, (await optimiseTargets(model, REQUESTS, shorter))[e].delta);
    }
  }),
);

Deno.test(
  "optimiseTargets() leaves the rows of edits that have stopped out of a large batch and changes no bit",
  withGpu(async (gpu) => {
    using model = await open(gpu, "llama-tiny");
    const many = Array.from({ length: 6 }, (_, i) =>
      REQUESTS.map((request) => ({
        ...request,
        target: request.target.map((id) => (id + 5 * i) % model.dims.vocab),
      }))).flat();
    const options = { ...OPTIONS, v_num_grad_steps: 12 };
    const free = await optimiseTargets(model, many, { ...options, threshold: -1 });
    const totals = free.map(({ losses }) => losses.map(({ nll, kl, wd }) => nll + kl + wd));
    const threshold = totals.map((t) => t[5]).toSorted((a, b) => a - b)[many.length >> 1] * 1.0001;
    const ends = totals.map((t) => t.findIndex((loss) => loss < threshold));
    const plans: Map<string, number> = new Map();
    const see = (r: Recorder) => {
      const finish = r.finish.bind(r);
      r.finish = (label) => (plans.set(label!, (plans.get(label!) ?? 0) + 1), finish(label));
    };
    const stopped = await watching(gpu, see, () => optimiseTargets(model, many, { ...options, threshold }));
    const left = plans.get("edits left") ?? 0;
    ok(left > 1, `Rows were left out ${left} times; the ends are ${ends}`);
    strictEqual(plans.get("optimise targets"), 1 + left);
    for (const [e, target] of stopped.entries()) {
      const steps = ends[e] < 0 ? options.v_num_grad_steps : ends[e] + 1;
      deepStrictEqual(target.losses, free[e].losses.slice(0, steps), `losses of edit ${e}`);
      if (ends[e] < 0) deepStrictEqual(target.delta, free[e].delta, `δ of edit ${e}`);
    }
  }),
);

Deno.test(
  "optimiseTargets() waits twice, makes no buffer while it replays, and returns all it took",
  withGpu(async (gpu) => {
    using model = await open(gpu, "llama-tiny");
    gpu.memory.trim();
    const before = gpu.memory.now;
    const waits = gpu.waits;
    let replayed = 0;
    const see = (r: Recorder) => {
      const finish = r.finish.bind(r);
      r.finish = (label) => {
        const plan = finish(label);
        const run = plan.run.bind(plan);
        plan.run = (times = 1) => {
          const made = countBuffers(gpu, () => run(times));
          strictEqual(made, 0, `${label} made ${made} buffers in ${times} replays`);
          replayed += times;
        };
        return plan;
      };
    };
    await watching(gpu, see, () => optimiseTargets(model, REQUESTS, OPTIONS));
    strictEqual(replayed, 2 + OPTIONS.v_num_grad_steps);
    ok(gpu.waits - waits <= 2, `It waited ${gpu.waits - waits} times`);
    gpu.memory.trim();
    strictEqual(gpu.memory.now, before);
  }),
);

/** Buffers that the device makes while `body` runs. */
function countBuffers(gpu: Gpu, body: () => void): number {
  const { device } = gpu;
  let made = 0;
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => (made++, create(descriptor));
  try {
    body();
  } finally {
    delete (device as { createBuffer?: unknown }).createBuffer;
  }
  return made;
}

Deno.test(
  "optimiseTargets() reads the model with its overlays",
  withGpu(async (gpu) => {
    using model = await open(gpu, "gpt2-tiny");
    const [plain] = await optimiseTargets(model, REQUESTS, OPTIONS);
    using _edit = applyDeltas(model, [noise(model, "layer.1.mlp.down", 1, 5)]);
    const [edited] = await optimiseTargets(model, REQUESTS, OPTIONS);
    deepStrictEqual(edited.keys, plain.keys);
    ok(relativeError(edited.v0, plain.v0) > 1e-2);
    const full = await fullStep(model, REQUESTS[0], new Float32Array(model.dims.width), OPTIONS);
    ok(Math.abs(edited.losses[0].nll - full.nll) <= 1e-5 * full.nll);
  }),
);

Deno.test(
  "optimiseTargets() names edit and step when a loss is not finite",
  withGpu(async (gpu) => {
    using model = await open(gpu, "llama-tiny");
    // A decay of 2e38·‖δ‖ is 0 at first; at ‖δ‖ = lr·√32 = 2.8, after one update, it is over 3.4e38.
    const [{ v0 }] = await optimiseTargets(model, REQUESTS, OPTIONS);
    await rejects(
      optimiseTargets(model, REQUESTS.slice(0, 1), {
        ...OPTIONS,
        v_weight_decay: 2e38 * Math.hypot(...v0) ** 2,
      }),
      /The loss of edit 0 is not finite at step 1$/,
    );
    // Only edit 2 has the token 22.
    const embed = tensor(model, "embed");
    writeBytes(gpu, embed, 22 * model.dims.width * 4, new Uint8Array(4).fill(255));
    await rejects(optimiseTargets(model, REQUESTS, OPTIONS), /The loss of edit 2 is not finite at step 0$/);
    const [fine] = await optimiseTargets(model, REQUESTS.slice(0, 2), OPTIONS);
    ok(fine.delta.every(Number.isFinite));
  }),
);
