import assert from "node:assert/strict";
import { join } from "node:path";
import { type CollectOptions, collectStatistics } from "../../editors/collect.ts";
import { type CollectState, readCollectState, writeCollectState } from "../../editors/collect_state.ts";
import { choleskyInPlace, choleskySolve } from "../../engine/linalg/host.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { forward } from "../../engine/models/model.ts";
import { packRows } from "../../engine/models/rows.ts";
import type { Site } from "../../engine/models/sites.ts";
import type { Tokenizer } from "../../engine/io/tokenizer.ts";
import { capture } from "../../engine/ops/rows.ts";
import { createTensor, freeTensor } from "../../engine/tensor/tensor.ts";
import { readF32 } from "../../engine/tensor/transfer.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { modelFolder, NO_TOKENIZER } from "../patches/_models.ts";

/** A tokenizer for tiny models: a character a token. */
const LETTERS = { encode: (text: string) => [...text].map((c) => c.charCodeAt(0) % 97) } as Tokenizer;

/** Runs with a tiny GPT-2 (3 layers, keys of 128 numbers, 64 positions) that reads letters. */
function withModel(body: (model: LoadedModel) => Promise<void>): () => Promise<void> {
  return withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    await body(Object.create(model, { tokenizer: { value: LETTERS } }));
  });
}

/** Seeded documents of 40 to 71 letters. */
function documents(count: number): string[] {
  return Array.from({ length: count }, (_, i) =>
    Array.from(
      { length: 40 + i * 7 % 32 },
      (_, t) => String.fromCharCode(97 + (i * 131 + t * t * 17 + t * 5) % 26),
    ).join(""));
}

function optionsOf(change: Partial<CollectOptions>): CollectOptions {
  return {
    layers: [0, 2],
    tokens: 1e6,
    documents: [],
    corpus: { name: "letters", hash: "c" },
    modelHash: "m",
    maxLength: 512,
    converged: 1,
    ...change,
  };
}

/** Keys of one document in every row, by a forward of its own. */
async function keysOf(model: LoadedModel, ids: number[], layer: number): Promise<Float32Array> {
  const { gpu, dims } = model;
  using rows = packRows(gpu, [{ ids }], { windows: dims.windows });
  const kept = createTensor(gpu, "keys", [ids.length, dims.inner]);
  const ctx = { gpu, r: gpu.recorder() };
  const site: Site = `layer.${layer}.mlp.key`;
  const hooks = new Map([[site, (ctx_: typeof ctx, keys: typeof kept) => {
    capture(ctx_, keys, undefined, kept);
    return keys;
  }]]);
  forward(ctx, model, rows, { hooks });
  using plan = ctx.r.finish("keys");
  plan.run();
  const keys = await readF32(gpu, kept);
  freeTensor(gpu, kept);
  return keys;
}

Deno.test(
  "collectStatistics() gives the mean of k kᵀ over the tokens asked for, position 0 included",
  withModel(async (model) => {
    // 64 letters fill the context, 50 is the cap on a document, 130 tokens end within the third one.
    const texts = ["", ...documents(5)];
    const done = await collectStatistics(
      model,
      optionsOf({ documents: texts, tokens: 130, maxLength: 50, layers: [2, 0] }),
    );
    const { inner } = model.dims;
    let room = 130;
    const read = texts.slice(1, 4).map((text) => {
      const ids = LETTERS.encode(text).slice(0, Math.min(50, room));
      room -= ids.length;
      return ids;
    });
    assert.equal(room, 0);
    for (const [i, layer] of [2, 0].entries()) {
      const expected = new Float64Array(inner * (inner + 1) / 2);
      for (const ids of read) {
        const keys = await keysOf(model, ids, layer);
        for (let t = 0; t < ids.length; t++) {
          for (let a = 0, at = 0; a < inner; a++) {
            for (let b = 0; b <= a; b++) expected[at++] += keys[t * inner + a] * keys[t * inner + b] / 130;
          }
        }
      }
      const { origin, lower } = done[i];
      // Products and keys are f32.
      assert.ok(relativeError(lower, expected) < 1e-6, `layer ${layer}`);
      assert.deepEqual(origin, {
        modelHash: "m",
        layer,
        width: inner,
        corpusHash: "c",
        corpusName: "letters",
        tokens: 130,
        documents: 3,
        maxLength: 50,
        complete: true,
        settings: { tokens: 130, converged: 1 },
      });
    }
  }),
);

Deno.test(
  "collectStatistics() cuts documents at the context when maxLength is longer",
  withModel(async (model) => {
    const [{ origin }] = await collectStatistics(model, optionsOf({ documents: ["x".repeat(100)] }));
    assert.equal(origin.tokens, model.dims.maxPositions);
  }),
);

Deno.test(
  "collectStatistics() stops at a doubling of the sample when C⁻¹k turns little enough",
  withModel(async (model) => {
    const run = (converged: number) =>
      collectStatistics(model, optionsOf({ documents: documents(200), converged }));
    const [[loose], [strict], [never]] = [await run(0.01), await run(0.999999), await run(1)];
    assert.equal(never.origin.documents, 200);
    const { tokens, convergence } = loose.origin;
    // The first look is at 4·128 tokens, so within the first batch of 1024; the second at the next doubling.
    assert.ok(tokens >= 2 * 1024 && tokens < 4 * 1024, `${tokens} tokens`);
    assert.ok(convergence! >= 0.01 && convergence! < 1, `cosine ${convergence}`);
    assert.ok(strict.origin.tokens > tokens);
  }),
);

Deno.test(
  "collectStatistics() reports the angle of C⁻¹k between half of the sample and all of it, layer by layer",
  withModel(async (model) => {
    const states: CollectState[] = [];
    const done = await collectStatistics(
      model,
      optionsOf({ documents: documents(160), onBatch: async (_, now) => void states.push(await now()) }),
    );
    // An independent C⁻¹k: the sums of the states in which the looks were taken, solved on the host.
    const looked = states.filter((state, i) => i === 0 || state.next !== states[i - 1].next);
    assert.ok(looked.length >= 3, `${looked.length} looks`);
    for (const [l, { origin }] of done.entries()) {
      assert.equal(origin.looks!.length, looked.length - 1);
      for (const [i, look] of origin.looks!.entries()) {
        const angles = anglesOf(looked[i], looked[i + 1], l, model.dims.inner);
        assert.equal(look.tokens, looked[i + 1].tokens);
        // Same sums, another route: its rounding, and that of the arc cosine.
        assert.ok(Math.abs(look.median - angles[4]) < 1e-4, `${look.median}° is not ${angles[4]}°`);
        assert.ok(Math.abs(look.worst - angles[7]) < 1e-4, `${look.worst}° is not ${angles[7]}°`);
      }
      const last = origin.looks!.at(-1)!;
      assert.equal(origin.convergence, Math.cos(last.median * Math.PI / 180));
    }
  }),
);

/** The sorted angles of C⁻¹k of the watched keys between two states, in degrees; solved in f64 on the host. */
function anglesOf(half: CollectState, all: CollectState, layer: number, n: number): number[] {
  const solved = [half, all].map(({ sums, tokens }) => {
    const C = new Float64Array(n * n);
    for (let i = 0, at = 0; i < n; i++) {
      for (let j = 0; j <= i; j++, at++) C[i * n + j] = C[j * n + i] = sums[layer][at] / tokens;
    }
    const trace = C.reduce((sum, v, i) => i % (n + 1) === 0 ? sum + v : sum, 0);
    for (let i = 0; i < n; i++) C[i * n + i] += 1e-6 * trace / n;
    choleskyInPlace(C, n, "C");
    return (key: Float64Array) => choleskySolve(C, n, key);
  });
  const keys = all.keys![layer];
  return Array.from({ length: keys.length / n }, (_, i) => {
    const [a, b] = solved.map((solve) => solve(keys.slice(i * n, (i + 1) * n)));
    const dot = (x: Float64Array, y: Float64Array) => x.reduce((sum, v, j) => sum + v * y[j], 0);
    return Math.acos(dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))) * 180 / Math.PI;
  }).sort((x, y) => x - y);
}

Deno.test(
  "collectStatistics() gives the same bits when the sums are tiled into small buffers",
  withModel(async (model) => {
    // A row of tiles of 128 columns is 32 KiB: the triangle of width 128 then takes two panels.
    const run = (maxShardBytes?: number) =>
      collectStatistics(model, optionsOf({ documents: documents(20), maxShardBytes }));
    assert.deepEqual(await run(64 * 128 * 4), await run());
    await assert.rejects(run(64 * 127 * 4), /Cannot store C of layer 0 \[128, 128\]: .* the limit is 32512/);
  }),
);

Deno.test(
  "collectStatistics() gives the same bits when it is interrupted after any batch",
  withModel(async (model) => {
    const states: CollectState[] = [];
    const options = optionsOf({ documents: documents(120), converged: 0.9999 });
    const whole = await collectStatistics(model, {
      ...options,
      onBatch: async (_, snapshot) => void states.push(await snapshot()),
    });
    assert.ok(states.length > 3, `${states.length} batches`);
    await inFolder(async (folder) => {
      for (const state of states.slice(0, -1)) {
        const path = join(folder, "state");
        await writeCollectState(path, state);
        const resume = await readCollectState(path);
        assert.deepEqual(resume.sums, state.sums);
        assert.deepEqual(resume.last, state.last);
        assert.deepEqual(await collectStatistics(model, { ...options, resume }), whole, `${state.tokens}`);
      }
    });
  }),
);
