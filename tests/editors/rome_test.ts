/**
 * ROME, R-ROME and p-ROME: guide section 17, acceptance tests 3, 6 and 8, and edits in sequence. The numbers
 * against the authors' code are in rome_parity_test.ts.
 */
import { deepStrictEqual, notDeepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { contexts } from "../../editors/contexts.ts";
import { applyDeltas, type WeightDelta } from "../../editors/edit.ts";
import { parseHparams, type RomeHparams, romeSchema } from "../../editors/hparams.ts";
import type { EditRequest } from "../../editors/requests.ts";
import { rome, romeTarget, romeUpdate, type RomeVariant } from "../../editors/rome.ts";
import type { Statistics } from "../../editors/statistics.ts";
import { optimiseTargets } from "../../editors/targets.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import { choleskyInPlace, choleskySolve } from "../../engine/linalg/host.ts";
import { loadModel } from "../../engine/models/load.ts";
import { type Model, weight } from "../../engine/models/model.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";
import { withGpu } from "../_gpu.ts";
import { fixture, inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { normals } from "../engine/ops/_reference.ts";
import { logitsOf, modelFolder } from "../patches/_models.ts";
import { writeSquareGpt2 } from "./_square.ts";
import { mapKey, meanOf, OPTIONS, REQUESTS } from "./_targets.ts";

const VARIANTS: RomeVariant[] = ["rome", "r-rome", "p-rome"];

/** C⁻¹k for a well-conditioned C that is not the identity: A Aᵀ/n + I/2. */
function solverOf(n: number): (key: Float64Array) => Promise<Float64Array> {
  const a = normals(n * n, 17), c = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      let sum = i === j ? 0.5 : 0;
      for (let k = 0; k < n; k++) sum += a[i * n + k] * a[j * n + k] / n;
      c[i * n + j] = sum;
    }
  }
  choleskyInPlace(c, n, "C");
  return (key) => Promise.resolve(choleskySolve(c, n, key));
}

/** (W + ΔW) k + b on the host in f64, from the stored numbers: [in, out] in GPT-2's Conv1D, else [out, in]. */
async function hostMap(model: Model, delta: WeightDelta, key: ArrayLike<number>): Promise<Float64Array> {
  const w = weight(model, delta.role);
  const [dense] = await readTensors(model.gpu, w.matrix) as Float32Array[];
  const bias = w.bias && (await readTensors(model.gpu, w.bias))[0];
  const along = delta.right.reduce((sum, r, i) => sum + r * key[i], 0);
  const conv1d = model.config.type === "gpt2";
  return Float64Array.from({ length: w.out }, (_, o) => {
    let sum = (bias?.[o] ?? 0) + delta.left[o] * along;
    for (let i = 0; i < w.in; i++) sum += dense[conv1d ? i * w.out + o : o * w.in + i] * key[i];
    return sum;
  });
}

const close = (got: ArrayLike<number>, want: ArrayLike<number>, what: string) => {
  const error = relativeError(got, want);
  // The bound; rank-one factors in f32 cost about 1e-6.
  ok(error <= 1e-4, `${what} is off by ${error} relative`);
};

async function checkConstraint(gpu: Gpu, path: string, what: string) {
  using model = await loadModel(gpu, path, { tokenizer: false });
  const options = { ...OPTIONS, layer: 0 };
  const solve = solverOf(model.dims.inner);
  const [target] = await optimiseTargets(model, REQUESTS.slice(0, 1), options);
  const plain = await logitsOf(model, [REQUESTS[0].prompts[0].ids]);
  const wanted = target.v0.map((v, i) => v + target.delta[i]);
  for (const variant of VARIANTS) {
    const { left, right } = await romeUpdate(variant, target, solve);
    const delta: WeightDelta = { role: "layer.0.mlp.down", rank: 1, left, right };
    const key = variant === "r-rome" ? meanOf(target.keys) : target.keys[0];
    {
      using _edit = applyDeltas(model, [delta]);
      close(await mapKey(model, delta.role, key), wanted, `${variant} on ${what}, device`);
      // The edited model's own MLP output at the bare prompt's subject.
      const [again] = await optimiseTargets(model, REQUESTS.slice(0, 1), { ...options, v_num_grad_steps: 1 });
      if (variant !== "r-rome") close(again.v0, wanted, `${variant} on ${what}, forward`);
      notDeepStrictEqual(await logitsOf(model, [REQUESTS[0].prompts[0].ids]), plain);
    }
    close(await hostMap(model, delta, key), wanted, `${variant} on ${what}, host`);
    deepStrictEqual(await logitsOf(model, [REQUESTS[0].prompts[0].ids]), plain, `${variant} undone`);
  }
}

for (const name of ["gpt2-tiny", "llama-tiny"]) {
  Deno.test(
    `ROME's updates map their key to v0 + δ on ${name}`,
    withGpu((gpu) => checkConstraint(gpu, modelFolder(name), name)),
  );
}

Deno.test(
  "ROME's updates map their key to v0 + δ when W is square, in both orientations",
  withGpu(async (gpu) => {
    // The SentencePiece fixture's inner width is its width; of GPT-2's, a quarter of the neurons is left.
    await checkConstraint(gpu, fixture("tiny-llama-spm.gguf"), "a square LLaMA");
    await inFolder(async (folder) => {
      await writeSquareGpt2(folder);
      await checkConstraint(gpu, folder, "a square GPT-2");
    });
  }),
);

Deno.test("romeUpdate() divides by the key that its variant is solved for", async () => {
  const keys = [Float32Array.of(1, 0, 1), Float32Array.of(3, 2, 0)];
  const outputs = [Float32Array.of(1, 1), Float32Array.of(3, 5)];
  const target = { delta: Float32Array.of(2, -4), v0: outputs[0], outputs, keys, losses: [] };
  const same = (key: Float64Array) => Promise.resolve(key);
  // k̄ = (2, 1, 0.5), ‖k̄‖² = 5.25; k_b = (1, 0, 1), k̄·k_b = 2.5.
  const norm = Math.sqrt(5.25);
  const mean = [2 / norm, 1 / norm, 0.5 / norm], bare = [1 / Math.SQRT2, 0, 1 / Math.SQRT2];
  const expected: Record<RomeVariant, { u: number[]; left: number[] }> = {
    "rome": { u: mean, left: [2 * norm / 2.5, -4 * norm / 2.5] },
    // v0 + δ − mean output = (1 + 2 − 2, 1 − 4 − 3).
    "r-rome": { u: mean, left: [1 / norm, -6 / norm] },
    "p-rome": { u: bare, left: [2 / Math.SQRT2, -4 / Math.SQRT2] },
  };
  for (const variant of VARIANTS) {
    const { left, right, u } = await romeUpdate(variant, target, same);
    close(u, expected[variant].u, `u of ${variant}`);
    close(right, expected[variant].u, `right of ${variant}`);
    close(left, expected[variant].left, `left of ${variant}`);
  }
  const { keyRatio } = await romeUpdate("rome", target, same);
  ok(Math.abs(keyRatio - 2.5 / 5.25) < 1e-12);
});

const EDITS: EditRequest[] = [
  { prompt: "The mother tongue of {} is", subject: "Danielle", target: "English" },
  { prompt: "The mother tongue of {} is", subject: "Maria", target: "French" },
];

const hparamsOf = (more: Partial<RomeHparams> = {}): RomeHparams =>
  parseHparams(romeSchema, {
    ...{ layers: [0], v_num_grad_steps: 4, context_template_length_params: [[3, 2]] },
    ...{ clamp_norm_factor: 40, ...more },
  }, "The test").hparams;

/** Statistics of layer 0 that count how often they are asked. */
function fakeStatistics(inner: number) {
  const solve = solverOf(inner);
  const asked: number[] = [];
  const statistics: Statistics = {
    layers: new Map(),
    solve: (layer, key) => (asked.push(layer), solve(key)),
    routes: () => [],
    projector: () => Promise.reject(new Error("ROME needs no projector")),
    [Symbol.dispose]() {},
  };
  return { statistics, asked };
}

for (const name of ["tiny-gpt2.gguf", "tiny-llama-bpe.gguf"]) {
  Deno.test(
    `rome() edits in sequence, each edit on the model with those before it, and leaves ${name} as it was`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, fixture(name));
      const { statistics, asked } = fakeStatistics(model.dims.inner);
      const options = { hparams: hparamsOf(), statistics };
      const prompts = [model.tokenizer.encode("The mother tongue of Danielle is")];
      const plain = await logitsOf(model, prompts);
      const progress: number[][] = [];
      const both = await rome(model, EDITS, "r-rome", {
        ...options,
        onProgress: (done, total) => progress.push([done, total]),
      });
      deepStrictEqual(progress, [[1, 2], [2, 2]]);
      deepStrictEqual(asked, [0, 0]);
      deepStrictEqual(await logitsOf(model, prompts), plain);
      deepStrictEqual(both.requests.map((r) => r.target), [" English", " French"]);
      both.outcomes.forEach((o) => strictEqual(o.steps, o.losses.length));

      const first = await rome(model, EDITS.slice(0, 1), "r-rome", options);
      deepStrictEqual(first.deltas, both.deltas.slice(0, 1));
      const unaware = await rome(model, EDITS.slice(1), "r-rome", options);
      notDeepStrictEqual(unaware.deltas, both.deltas.slice(1));
      using _first = applyDeltas(model, first.deltas);
      const second = await rome(model, EDITS.slice(1), "r-rome", options);
      deepStrictEqual(second.deltas, both.deltas.slice(1));
    }),
  );
}

Deno.test(
  "rome() takes C = I when mom2_adjustment is false, and needs no statistics then",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, fixture("tiny-llama-bpe.gguf"));
    const hparams = hparamsOf({ mom2_adjustment: false });
    const texts = await contexts(model, hparams.context_template_length_params);
    const request = { ...EDITS[0], target: " English" };
    const options = { ...hparams, layer: 0 };
    const [{ keys }] = await optimiseTargets(model, [romeTarget(model, request, texts)], options);
    for (const variant of VARIANTS) {
      const { deltas: [delta] } = await rome(model, [request], variant, { hparams });
      const key = variant === "p-rome" ? Float64Array.from(keys[0]) : meanOf(keys);
      const norm = Math.hypot(...key);
      close(delta.right, key.map((k) => k / norm), `u of ${variant}`);
    }
  }),
);

Deno.test(
  "rome() edits the last layer",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, fixture("tiny-gpt2.gguf"));
    // Without decay: this model's outputs are so small that it would rule the loss.
    const more = { v_weight_decay: 0, v_lr: 0.05, v_num_grad_steps: 8, mom2_adjustment: false };
    const hparams = hparamsOf({ layers: [model.dims.layers - 1], ...more });
    // The subject ends the prompt: in the last layer no later token can see the change.
    const request = { ...EDITS[0], prompt: "French is the mother tongue of {}" };
    const edit = await rome(model, [request], "rome", { hparams });
    strictEqual(edit.deltas[0].role, `layer.${model.dims.layers - 1}.mlp.down`);
    const { losses } = edit.outcomes[0];
    ok(losses[losses.length - 1].nll < losses[0].nll, `${JSON.stringify(losses)}`);
  }),
);

Deno.test(
  "rome() names the request when one of several is not valid, before it edits anything",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, fixture("tiny-gpt2.gguf"));
    const hparams = hparamsOf({ mom2_adjustment: false });
    const bad = [EDITS[0], { ...EDITS[1], subject: " " }];
    await rejects(rome(model, bad, "rome", { hparams }), /Request 2 has an empty subject/);
  }),
);
