/** The fingerprint of weights: blind to how they are stored, not to any bit of them. */
import { deepStrictEqual, equal, match, notEqual } from "node:assert/strict";
import { applyDeltas } from "../../../editors/edit.ts";
import type { GpuBuffer } from "../../../engine/gpu/memory.ts";
import { fingerprint } from "../../../engine/models/fingerprint.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { weight } from "../../../engine/models/model.ts";
import { withGpu } from "../../_gpu.ts";
import { modelFolder, NO_TOKENIZER, noise } from "../../patches/_models.ts";

for (const name of ["gpt2-tiny", "qwen2-tiny"]) {
  Deno.test(
    `fingerprint() changes with one bit of any tensor and comes back with it (${name})`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      const before = await fingerprint(model);
      match(before, /^[0-9a-f]{64}$/);
      equal(await fingerprint(model), before);
      const seen = new Set([before]);
      // A tied head is the table of embeddings: each tensor once.
      const linear = [...model.weights.values()].flatMap(({ matrix, bias }) =>
        bias ? [matrix, bias] : [matrix]
      );
      for (const tensor of new Set([...model.tensors.values(), ...linear])) {
        const buffer = tensor.shards.at(-1)!.storage as GpuBuffer;
        const [word] = new Uint32Array((await gpu.read({ buffer, bytes: 4 }))[0]);
        gpu.device.queue.writeBuffer(buffer.gpu, 0, Uint32Array.of(word ^ 1));
        const changed = await fingerprint(model);
        equal(seen.has(changed), false, tensor.label);
        seen.add(changed);
        gpu.device.queue.writeBuffer(buffer.gpu, 0, Uint32Array.of(word));
      }
      equal(await fingerprint(model), before);
    }),
  );
}

Deno.test(
  "fingerprint() knows the overlays that lie on the weights, and which",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const before = await fingerprint(model);
    const delta = noise(model, "layer.1.mlp.down", 2, 1), other = noise(model, "layer.1.mlp.down", 2, 9);
    const seen = [before];
    for (const deltas of [[delta], [other], [delta, other], [other, delta]]) {
      using _applied = applyDeltas(model, deltas);
      seen.push(await fingerprint(model));
      equal(await fingerprint(model), seen.at(-1));
    }
    equal(new Set(seen).size, seen.length);
    equal(await fingerprint(model), before);
    equal(weight(model, "layer.1.mlp.down").overlays.length, 0);
  }),
);

Deno.test(
  "fingerprint() is the same however the weights are sharded, and leaves no memory",
  withGpu(async (gpu) => {
    const prints: string[] = [];
    for (const options of [{}, { maxShardBytes: 2048 }]) {
      using model = await loadModel(gpu, modelFolder("gpt2-tiny"), { ...NO_TOKENIZER, ...options });
      gpu.memory.trim();
      const held = gpu.memory.now;
      prints.push(await fingerprint(model));
      gpu.memory.trim();
      deepStrictEqual(gpu.memory.now, held);
    }
    equal(prints[1], prints[0]);
    using different = await loadModel(gpu, modelFolder("llama-tiny"), NO_TOKENIZER);
    notEqual(await fingerprint(different), prints[0]);
  }),
);
