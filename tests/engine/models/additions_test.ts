/** What stands beside the weights: it fires where it should, is exact where it should not, and comes off again. */
import assert from "node:assert/strict";
import { applyDeltas } from "../../../editors/edit.ts";
import { mapRows } from "../../../editors/beside/map_rows.ts";
import { type Addition, joinAdditions } from "../../../engine/models/additions/addition.ts";
import { REPLACE, type Replace } from "../../../engine/models/additions/codebook.ts";
import { additionsOn, layAdditions } from "../../../engine/models/additions/lay.ts";
import { fingerprint } from "../../../engine/models/fingerprint.ts";
import { generate } from "../../../engine/models/generate.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { type Model, weight } from "../../../engine/models/model.ts";
import { scoreTargets } from "../../../evaluation/scoring.ts";
import { logitsOf, modelFolder, noise } from "../../patches/_models.ts";
import { withGpu } from "../../_gpu.ts";
import { normals } from "../ops/_reference.ts";
import { relativeError } from "./_fixtures.ts";

const MODELS = ["gpt2-tiny", "llama-tiny", "mistral-tiny"];
const IDS = [[5, 17, 60, 2, 44, 90], [80, 1, 33], [12, 13, 14, 15, 16]];
const open = (gpu: Parameters<typeof loadModel>[0], name: string) =>
  loadModel(gpu, modelFolder(name), { tokenizer: false });

/** A codebook whose one key is the last token of a prompt. */
async function book(model: Model, role: string, ids: number[], radius: number, replace: Replace = "all") {
  const { inputs: [key] } = await mapRows(model, role, [{ ids, positions: [ids.length - 1] }]);
  const { out } = weight(model, role);
  const addition: Addition = {
    kind: "codebook",
    role,
    settings: { replace },
    entries: [{ id: ids.join() }],
    tensors: new Map([
      ["keys", { shape: [1, key.length], values: key }],
      ["values", { shape: [1, out], values: Float32Array.from(normals(out, 7, 2)) }],
      ["radius", { shape: [1], values: Float32Array.of(radius) }],
    ]),
  };
  return addition;
}

function slots(model: Model, layer: number, n: number, seed: number, scale = 1): Addition {
  const { width } = model.dims;
  const random = (size: number, seed: number, by = 1) => Float32Array.from(normals(size, seed, by));
  return {
    kind: "slots",
    role: `layer.${layer}.mlp.down`,
    settings: { activation: "gelu_new", gated: false },
    entries: Array.from({ length: n }, () => ({})),
    tensors: new Map([
      ["keys", { shape: [n, width], values: random(n * width, seed) }],
      ["bias", { shape: [n], values: random(n, seed + 1) }],
      ["values", { shape: [n, width], values: random(n * width, seed + 2, scale) }],
    ]),
  };
}

const rowsOf = (all: Float32Array, model: Model, sequence: number) => {
  const before = IDS.slice(0, sequence).flat().length * model.dims.vocab;
  return all.subarray(before, before + IDS[sequence].length * model.dims.vocab);
};

for (const name of MODELS) {
  for (const map of ["down", "up"]) {
    Deno.test(
      `a codebook at ${map} of ${name} answers its own prompt, leaves every other bit, and comes off`,
      withGpu(async (gpu) => {
        using model = await open(gpu, name);
        // An edit of the same map below: the codebook changes no bit of what that one does either.
        using _edit = applyDeltas(model, [noise(model, `layer.1.mlp.down`, 1, 3)]);
        const before = await logitsOf(model, IDS), weights = await fingerprint(model);
        for (const layer of [1, model.dims.layers - 1]) {
          const addition = await book(model, `layer.${layer}.mlp.${map}`, IDS[1], 1e-3);
          const laid = layAdditions(model, [addition]);
          const after = await logitsOf(model, IDS);
          assert.deepEqual(rowsOf(after, model, 0), rowsOf(before, model, 0));
          assert.deepEqual(rowsOf(after, model, 2), rowsOf(before, model, 2));
          assert.ok(relativeError(rowsOf(after, model, 1), rowsOf(before, model, 1)) > 1e-2);
          assert.notEqual(await fingerprint(model), weights);
          laid[Symbol.dispose]();
          assert.deepEqual(await logitsOf(model, IDS), before);
          assert.equal(await fingerprint(model), weights);
        }
      }),
    );
  }

  for (const replace of Object.keys(REPLACE) as Replace[]) {
    Deno.test(
      `texts with cached keys are those of whole passes: codebook (${replace}) on ${name}`,
      withGpu(async (gpu) => {
        using model = await open(gpu, name);
        const plain = await generate(model, IDS, { maxTokens: 5, stop: [] });
        using _laid = layAdditions(model, [await book(model, "layer.1.mlp.down", IDS[1], 1e-3, replace)]);
        const texts = await generate(model, IDS, { maxTokens: 5, stop: [] });
        assert.deepEqual(texts[0], plain[0]);
        assert.deepEqual(texts[2], plain[2]);
        if (replace === "all") assert.notDeepEqual(texts[1], plain[1]);
        // Under teacher forcing every token of a text is the likeliest, also where prompts share their rows.
        const items = IDS.map((prompt, i) => ({ prompt, target: texts[i] }));
        const other = IDS.map((prompt) => ({ prompt, target: [1, 2, 3] }));
        const scores = await scoreTargets(model, [...items, ...other]);
        assert.deepEqual(scores.slice(0, 3).map(({ argmax }) => argmax), texts);
      }),
    );
  }

  Deno.test(
    `slots of ${name}: no values change nothing, two additions are one, and all come off`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const before = await logitsOf(model, IDS);
      const last = model.dims.layers - 1;
      {
        using _zero = layAdditions(model, [slots(model, last, 3, 1, 0)]);
        assert.deepEqual(await logitsOf(model, IDS), before);
      }
      const parts = [slots(model, last, 2, 1), slots(model, last, 3, 11)];
      const first = layAdditions(model, [parts[0]]);
      const one = await logitsOf(model, IDS);
      using second = layAdditions(model, [parts[1]]);
      const both = await logitsOf(model, IDS);
      assert.equal(additionsOn(model)[0].entries.length, 5);
      assert.ok(relativeError(both, one) > 1e-3 && relativeError(one, before) > 1e-3);
      second[Symbol.dispose]();
      assert.deepEqual(await logitsOf(model, IDS), one);
      first[Symbol.dispose]();
      assert.deepEqual(await logitsOf(model, IDS), before);
      assert.deepEqual(model.parts, []);
    }),
  );
}

Deno.test(
  "slots are the concatenated feed-forward layer: gpt2-tiny",
  withGpu(async (gpu) => {
    using model = await open(gpu, "gpt2-tiny");
    const { width, inner } = model.dims;
    const addition = slots(model, 2, 3, 5);
    let live: Float32Array;
    {
      using _laid = layAdditions(model, [addition]);
      live = await logitsOf(model, IDS);
    }
    const { fromHost, readF32 } = await import("../../../engine/tensor/transfer.ts");
    const up = weight(model, "layer.2.mlp.up"), down = weight(model, "layer.2.mlp.down");
    const [wUp, bUp, wDown] = [
      await readF32(gpu, up.matrix),
      await readF32(gpu, up.bias!),
      await readF32(gpu, down.matrix),
    ];
    const of = (name: string) => addition.tensors.get(name)!.values;
    const F = inner + 3;
    // Conv1D stores [in, out].
    const wide = new Float32Array(width * F);
    for (let i = 0; i < width; i++) {
      for (let j = 0; j < F; j++) {
        wide[i * F + j] = j < inner ? wUp[i * inner + j] : of("keys")[(j - inner) * width + i];
      }
    }
    const weights = new Map(model.weights);
    weights.set(up.role, {
      ...up,
      out: F,
      matrix: fromHost(gpu, "up", [width, F], wide),
      bias: fromHost(gpu, "bias", [F], Float32Array.of(...bUp, ...of("bias"))),
    });
    weights.set(down.role, {
      ...down,
      in: F,
      matrix: fromHost(gpu, "down", [F, width], Float32Array.of(...wDown, ...of("values"))),
    });
    const concatenated: Model = Object.create(model, { weights: { value: weights } });
    assert.ok(relativeError(live, await logitsOf(concatenated, IDS)) < 1e-6);
  }),
);

Deno.test("joinAdditions() puts an entry in the place of an earlier one of its name, others beside", () => {
  const make = (entries: [string | undefined, number][]): Addition => ({
    kind: "codebook",
    role: "layer.0.mlp.down",
    settings: { replace: "all" },
    entries: entries.map(([id, n]) => id === undefined ? { n } : { id, n }),
    tensors: new Map([["radius", {
      shape: [entries.length],
      values: Float32Array.from(entries, ([, n]) => n),
    }]]),
  });
  const joined = joinAdditions([
    make([["a", 1], ["b", 2]]),
    make([["a", 3], [undefined, 4]]),
    make([["c", 5]]),
  ]);
  assert.deepEqual([...joined.tensors.get("radius")!.values], [3, 2, 4, 5]);
  assert.deepEqual(joined.entries.map(({ n }) => n), [3, 2, 4, 5]);
  // One that was merged of others stands for them.
  const merged = make([["a+c", 6]]);
  const after = joinAdditions([joined, { ...merged, entries: [{ id: "a+c", n: 6, replaces: ["a", "c"] }] }]);
  assert.deepEqual([...after.tensors.get("radius")!.values], [2, 4, 6]);
});
