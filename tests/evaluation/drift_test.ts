import assert from "node:assert/strict";
import { applyDeltas, type WeightDelta } from "../../editors/edit.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import { toFloat32 } from "../../engine/io/convert.ts";
import { generate } from "../../engine/models/generate.ts";
import { loadModel } from "../../engine/models/load.ts";
import { type Model, weight } from "../../engine/models/model.ts";
import { readTensors } from "../../engine/tensor/transfer.ts";
import {
  divergences,
  drift,
  type DriftBaseline,
  driftBaseline,
  weightChanges,
} from "../../evaluation/drift.ts";
import { nGramEntropy } from "../../evaluation/metrics/text.ts";
import { NEUTRAL, passagesOf } from "../../evaluation/neutral.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "../editors/_prompts.ts";
import { fixture } from "../engine/io/_data.ts";
import { logitsOf, modelFolder, NO_TOKENIZER, noise } from "../patches/_models.ts";
import { logSoftmax } from "./_plain.ts";

/** Perplexity and KL from whole logits of each text by itself, in f64. */
async function plainly(model: Model, { prompts, windows }: DriftBaseline) {
  const { vocab } = model.dims;
  const rowsOf = async (ids: readonly number[]) => {
    const all = await logitsOf(model, [[...ids]]);
    return ids.map((_, t) => logSoftmax(all.subarray(t * vocab, (t + 1) * vocab)));
  };
  const nll: number[] = [], ends: Float64Array[] = [];
  for (const ids of windows) {
    const rows = await rowsOf(ids);
    ids.slice(1).forEach((id, t) => nll.push(-rows[t][id]));
  }
  for (const ids of prompts) ends.push((await rowsOf(ids)).at(-1)!);
  return { perplexity: Math.exp(nll.reduce((a, b) => a + b) / nll.length), ends };
}

function klPlainly(before: Float64Array[], after: Float64Array[]): number[] {
  return before.map((p, i) => p.reduce((sum, lp, id) => sum + Math.exp(lp) * (lp - after[i][id]), 0));
}

/** Memory by owner; the pool of temporaries outlives plans. */
function ownersOf(gpu: Gpu) {
  return gpu.memory.owners().filter(([owner]) => owner !== "temporaries");
}

function assertNear(got: number, wanted: number, relative: number, what: string): void {
  assert.ok(Math.abs(got - wanted) <= relative * Math.abs(wanted), `${what}: ${got}, not ${wanted}`);
}

Deno.test("the neutral texts are what they are said to be", () => {
  const { prompts, passages } = NEUTRAL;
  assert.equal(prompts.length, 40);
  assert.equal(new Set(prompts).size, 40);
  for (const prompt of prompts) assert.doesNotMatch(prompt, /\s$|\s\s|\.$/, prompt);
  const words = passages.join(" ").split(" ").length;
  assert.ok(words >= 580 && words <= 640, `${words} words`);
  assert.deepEqual(passagesOf("short"), passages.slice(0, 1));
  assert.deepEqual(passagesOf("whole"), passages);
});

/** Learned positions and a context that cuts passages; a begin-of-sequence token. Layer and size of the edit. */
const MODELS = [["atlas", ATLAS, 2, 1], ["llama", fixture("tiny-llama-spm.gguf"), 1, 100]] as const;

for (const [name, path, layer, strength] of MODELS) {
  Deno.test(
    `drift() is 0 on the unedited ${name}, and perplexity and KL of plain log-softmaxes on an edited one`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, path);
      using baseline = await driftBaseline(model, { repetition: false });
      assert.ok(baseline.windows.every((ids) => ids.length <= model.dims.maxPositions));
      const before = await plainly(model, baseline);
      // f32 logits of some 10 against f64 sums of them.
      assertNear(baseline.metrics["drift.perplexity"], before.perplexity, 1e-4, "perplexity before");
      assert.deepEqual(await drift(model, baseline), baseline.metrics);
      assert.deepEqual(baseline.metrics["drift.kl"], 0);

      const held = ownersOf(gpu);
      const { left, ...factors } = noise(model, `layer.${layer}.mlp.down`, 2, 5);
      using _edit = applyDeltas(model, [{ ...factors, left: left.map((x) => x * strength) }]);
      const withEdit = ownersOf(gpu);
      const after = await plainly(model, baseline);
      const kls = klPlainly(before.ends, after.ends);
      const wanted = {
        "drift.perplexity": after.perplexity,
        "drift.kl": kls.reduce((a, b) => a + b) / kls.length,
        "drift.kl_max": Math.max(...kls),
      };
      const got = await drift(model, baseline);
      for (const [key, value] of Object.entries(wanted)) assertNear(got[key], value, 1e-3, key);
      assert.ok(got["drift.kl"] > 1e-3, "the edit is no edit");
      assert.notDeepEqual(withEdit, held);
      assert.deepEqual(ownersOf(gpu), withEdit, "drift() keeps memory");

      // What was kept from below the edit changes no bit.
      assert.deepEqual(await drift(model, baseline), got);
      assert.deepEqual([...baseline.residuals.keys()], [layer]);
      using _lower = applyDeltas(model, [noise(model, "layer.0.mlp.down", 1, 6)]);
      const both = await drift(model, baseline);
      baseline.residuals.clear();
      assert.deepEqual(await drift(model, baseline), both);
      assert.notEqual(both["drift.kl"], got["drift.kl"]);
    }),
  );
}

Deno.test(
  "drift() begins above the layers that no edit touches, also for the head, and undone edits leave nothing",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    using baseline = await driftBaseline(model, { repetition: false });
    for (const role of ["layer.4.mlp.up", "head", "layer.3.attn.o"]) {
      const values = [];
      for (let again = 0; again < 2; again++) {
        using _edit = applyDeltas(model, [noise(model, role, 1, 9)]);
        values.push(await drift(model, baseline));
      }
      assert.deepEqual(values[1], values[0], role);
      assert.ok(values[0]["drift.kl"] > 0, role);
    }
    assert.deepEqual([...baseline.residuals.keys()], [4, 5, 3]);
    assert.deepEqual(await drift(model, baseline), baseline.metrics);
  }),
);

Deno.test(
  "drift() measures repetition in greedy texts of one length, and what is not asked for is left out",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    using baseline = await driftBaseline(model, { text: false });
    const prompts = NEUTRAL.prompts.slice(0, 5);
    const ids = prompts.map((prompt) => model.tokenizer.encode(prompt));
    const texts = await generate(model, ids, { maxTokens: 40, stop: [] });
    const entropies = texts.map((t, i) => nGramEntropy(prompts[i] + model.tokenizer.decode(t)));
    assertNear(baseline.metrics["drift.repetition"], entropies.reduce((a, b) => a + b) / 5, 1e-12, "entropy");
    assert.ok(!("drift.perplexity" in baseline.metrics));
    // An edit that makes every text one token repeats itself.
    const { left, right } = noise(model, "layer.5.mlp.down", 1, 1);
    const broken = { left: left.map((x) => 1000 * x), right: right.map(Math.abs) };
    using _broken = applyDeltas(model, [{ role: "layer.5.mlp.down", rank: 1, ...broken }]);
    const after = await drift(model, baseline);
    assert.ok(after["drift.repetition"] < baseline.metrics["drift.repetition"], JSON.stringify(after));
    using silent = await driftBaseline(model, { text: "whole", repetition: false });
    assert.equal(silent.windows.flat().length > 4 * passagesOf("short").join(" ").split(" ").length, true);
    assert.ok(!("drift.repetition" in await drift(model, silent)));
  }),
);

Deno.test("divergences() gives known values, 0 for equal rows, and never less", () => {
  const log = Math.log;
  const p = Float32Array.of(log(0.5), log(0.25), log(0.25)),
    q = Float32Array.of(log(0.25), log(0.25), log(0.5));
  const [kl] = divergences(p, q.map((z) => z + 7), 3);
  assertNear(kl, 0.25 * log(2), 1e-6, "KL");
  const rows = Float32Array.from({ length: 3000 }, (_, i) => 40 * Math.sin(i * i));
  assert.deepEqual(divergences(rows, rows, 1000), [0, 0, 0]);
  assert.ok(divergences(rows, rows.map((z) => z + 1e-5), 1000).every((kl) => kl >= 0 && kl < 1e-6));
  const [far] = divergences(Float32Array.of(0, -200), Float32Array.of(-200, 0), 2);
  assertNear(far, 200, 1e-6, "far apart");
});

/** Norms from whole matrices, in f64. */
async function denselyChanged(model: Model, role: string, deltas: readonly WeightDelta[]) {
  const w = weight(model, role);
  const [stored] = await readTensors(model.gpu, w.matrix);
  const base = stored instanceof Uint8Array
    ? toFloat32(w.matrix.dtype === "bf16" ? "BF16" : "F16", stored)
    : stored;
  let base2 = 0, delta2 = 0, after2 = 0;
  for (let o = 0; o < w.out; o++) {
    for (let i = 0; i < w.in; i++) {
      const value = base[w.layout === "out_in" ? o * w.in + i : i * w.out + o];
      let change = 0;
      for (const { rank, left, right } of deltas) {
        for (let r = 0; r < rank; r++) change += left[o * rank + r] * right[i * rank + r];
      }
      base2 += value ** 2;
      delta2 += change ** 2;
      after2 += (value + change) ** 2;
    }
  }
  const frobenius = Math.sqrt(delta2);
  return { role, frobenius, relative: frobenius / Math.sqrt(base2), growth: Math.sqrt(after2 / base2) - 1 };
}

for (
  const [name, path, roles] of [
    ["GPT-2 (in_out)", modelFolder("gpt2-tiny"), ["layer.1.mlp.down", "layer.2.attn.qkv"]],
    ["Llama (out_in)", modelFolder("llama-tiny"), ["layer.0.mlp.down", "layer.2.attn.o", "head"]],
    ["atlas (f16)", ATLAS, ["layer.1.mlp.down"]],
  ] as const
) {
  Deno.test(
    `weightChanges() from factors is what whole matrices give: ${name}`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, path, path === ATLAS ? {} : NO_TOKENIZER);
      using baseline =
        await (path === ATLAS ? driftBaseline(model, { repetition: false, text: false }) : undefined);
      const small = ({ left, ...delta }: WeightDelta) => ({ ...delta, left: left.map((x) => x / 100) });
      const deltas = roles.flatMap((role, i) => [
        noise(model, role, 3, 10 * i),
        small(noise(model, role, 1, 10 * i + 5)),
      ]);
      const got = await weightChanges(model, deltas);
      assert.deepEqual(got.map(({ role }) => role), roles);
      let largest = -Infinity;
      for (const [i, role] of roles.entries()) {
        const wanted = await denselyChanged(model, role, deltas.filter((delta) => delta.role === role));
        // Sums of products in f32 against f64.
        for (const key of ["frobenius", "relative", "growth"] as const) {
          assertNear(got[i][key], wanted[key], 1e-5, `${role} ${key}`);
        }
        largest = Math.max(largest, wanted.growth);
      }
      using _edits = applyDeltas(model, deltas);
      // Relative to the stored weights, whatever lies on them.
      assert.deepEqual(await weightChanges(model, deltas), got);
      if (baseline) assertNear((await drift(model, baseline))["drift.norm_growth"], largest, 1e-5, "drift");
    }),
  );
}

Deno.test(
  "weightChanges() of nothing is nothing, of a shrinking change is below 0, and keeps no memory",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const held = ownersOf(gpu);
    assert.deepEqual(await weightChanges(model, []), []);
    // −W/2 itself, of full rank.
    const w = weight(model, "layer.0.mlp.down");
    const [stored] = await readTensors(gpu, w.matrix) as Float32Array[];
    const right = new Float32Array(w.in * w.out);
    const left = new Float32Array(w.out * w.out);
    for (let o = 0; o < w.out; o++) {
      left[o * w.out + o] = -0.5;
      for (let i = 0; i < w.in; i++) right[i * w.out + o] = stored[i * w.out + o];
    }
    const [{ relative, growth }] = await weightChanges(model, [{ role: w.role, rank: w.out, left, right }]);
    assertNear(relative, 0.5, 1e-5, "relative");
    assertNear(growth, -0.5, 1e-5, "growth");
    assert.deepEqual(ownersOf(gpu), held);
  }),
);
