/** Row shards, several models on one device, and what is left when they are gone. */
import { deepStrictEqual, notDeepStrictEqual, ok, rejects } from "node:assert/strict";
import { applyDeltas } from "../../../editors/edit.ts";
import { generate } from "../../../engine/models/generate.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { withGpu } from "../../_gpu.ts";
import { logitsOf, modelFolder, noise } from "../../patches/_models.ts";
import { assertClose } from "../ops/_reference.ts";
import { readReference } from "./_fixtures.ts";

const SEQUENCES = [[5, 17, 60, 2, 44, 90], [80, 1, 33]];

/** Other cuts of the same sums, of 128 terms at most through three layers: see rows_test.ts. */
const ROUNDING = 5e-6;

for (const name of ["gpt2-tiny", "llama-tiny", "qwen2-tiny", "smollm2-tiny"]) {
  Deno.test(
    `row shards change no result beyond rounding on ${name}`,
    withGpu(async (gpu) => {
      const { greedy } = await readReference(name);
      const options = { maxTokens: greedy[0].new.length, stop: [] };
      using whole = await loadModel(gpu, modelFolder(name), { tokenizer: false });
      const expected = await logitsOf(whole, SEQUENCES);
      // Two rows a shard at the widest, and a cut that does not divide the rows.
      for (const maxShardBytes of [1024, 4000]) {
        using model = await loadModel(gpu, modelFolder(name), { tokenizer: false, maxShardBytes });
        const { matrix } = model.weights.get("head")!;
        ok(matrix.shards.length >= 2, `${matrix.shards.length} shards`);
        assertClose(await logitsOf(model, SEQUENCES), expected, ROUNDING, `${maxShardBytes} bytes`);
        deepStrictEqual(
          await generate(model, [greedy[0].prompt], options),
          [greedy[0].new],
        );
      }
    }),
  );
}

Deno.test(
  "overlays give the same result when the weight below them is in row shards",
  withGpu(async (gpu) => {
    for (const name of ["gpt2-tiny", "llama-tiny"]) {
      using whole = await loadModel(gpu, modelFolder(name), { tokenizer: false });
      using sharded = await loadModel(gpu, modelFolder(name), { tokenizer: false, maxShardBytes: 1024 });
      const deltas = [noise(whole, "layer.1.mlp.down", 2, 1), noise(whole, "layer.0.attn.o", 1, 9)];
      const plain = await logitsOf(whole, SEQUENCES);
      using _a = applyDeltas(whole, deltas);
      using _b = applyDeltas(sharded, deltas);
      const edited = await logitsOf(whole, SEQUENCES);
      notDeepStrictEqual(edited, plain);
      assertClose(await logitsOf(sharded, SEQUENCES), edited, ROUNDING, name);
    }
  }),
);

Deno.test(
  "two models on one device do not touch each other",
  withGpu(async (gpu) => {
    using gpt2 = await loadModel(gpu, modelFolder("gpt2-tiny"), { tokenizer: false });
    const alone = await logitsOf(gpt2, SEQUENCES);
    {
      using llama = await loadModel(gpu, modelFolder("llama-tiny"), { tokenizer: false });
      using twin = await loadModel(gpu, modelFolder("gpt2-tiny"), { tokenizer: false });
      const others = await logitsOf(llama, SEQUENCES);
      using _edit = applyDeltas(twin, [noise(twin, "layer.1.mlp.down", 1, 3)]);
      notDeepStrictEqual(await logitsOf(twin, SEQUENCES), alone);
      deepStrictEqual(await logitsOf(gpt2, SEQUENCES), alone);
      deepStrictEqual(await logitsOf(llama, SEQUENCES), others);
    }
    deepStrictEqual(await logitsOf(gpt2, SEQUENCES), alone);
  }),
);

Deno.test(
  "disposing a model returns every byte, and so does a load that fails",
  withGpu(async (gpu) => {
    gpu.memory.trim();
    const before = gpu.memory.owners();
    const { now } = gpu.memory;
    {
      using model = await loadModel(gpu, modelFolder("gpt2-tiny"), { tokenizer: false });
      ok(gpu.memory.now > now);
      using _edit = applyDeltas(model, [noise(model, "layer.1.mlp.down", 1, 3)]);
      await logitsOf(model, SEQUENCES);
      await generate(model, SEQUENCES, { maxTokens: 5 });
    }
    gpu.memory.trim();
    deepStrictEqual(gpu.memory.owners(), before);
    deepStrictEqual(gpu.memory.now, now);

    // The config promises a layer that the weights do not have.
    const folder = await Deno.makeTempDir();
    try {
      const from = modelFolder("llama-tiny");
      const config = JSON.parse(await Deno.readTextFile(`${from}/config.json`));
      await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ ...config, num_hidden_layers: 4 }));
      await Deno.copyFile(`${from}/model.safetensors`, `${folder}/model.safetensors`);
      await rejects(loadModel(gpu, folder, { tokenizer: false }), /has no tensor "model.layers.3/);
      await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(config));
      await damage(`${folder}/model.safetensors`);
      await rejects(loadModel(gpu, folder, { tokenizer: false }), /holds a value that is not finite/);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
    deepStrictEqual(gpu.memory.now, now);
  }),
);

/** Makes the file's last number NaN. */
async function damage(path: string) {
  const bytes = await Deno.readFile(path);
  bytes.fill(255, bytes.length - 4);
  await Deno.writeFile(path, bytes);
}
