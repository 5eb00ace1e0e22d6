/** Changes of whole tensors on a model: what they do, and that they come off exactly. */
import { deepStrictEqual, notDeepStrictEqual, throws } from "node:assert/strict";
import { toFloat32 } from "../../../engine/io/convert.ts";
import { fingerprint } from "../../../engine/models/fingerprint.ts";
import { loadModel } from "../../../engine/models/load.ts";
import type { Model } from "../../../engine/models/model.ts";
import { changedRoles, changeTensor, currentTensor, storedTensor } from "../../../engine/models/replace.ts";
import { sizeOf } from "../../../engine/tensor/tensor.ts";
import { readTensors, writeTensor } from "../../../engine/tensor/transfer.ts";
import { atlasFolder } from "../../../atlas/mod.ts";
import { withGpu } from "../../_gpu.ts";
import { normals } from "../ops/_reference.ts";
import { logitsOf, modelFolder } from "../../patches/_models.ts";

const IDS = [[5, 17, 60, 2, 44, 90], [80, 1, 33]];
const noise = (model: Model, role: string, seed: number) =>
  Float32Array.from(normals(sizeOf(currentTensor(model, role).shape), seed, 0.1));

for (
  const [name, roles] of [
    ["gpt2-tiny", [
      "layer.1.mlp.down",
      "layer.1.mlp.down.bias",
      "layer.0.attn.norm",
      "embed",
      "embed.positions",
    ]],
    ["llama-tiny", ["layer.2.mlp.gate", "final.norm", "embed", "head"]],
    ["qwen2-tiny", ["embed", "layer.0.attn.q.bias"]],
  ] as const
) {
  Deno.test(
    `changeTensor() on ${name} computes what rewritten tensors compute, and leaves no trace`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), { tokenizer: false });
      const plain = await logitsOf(model, IDS), unedited = await fingerprint(model);
      gpu.memory.trim();
      const { now } = gpu.memory;
      for (const role of roles) {
        const change = noise(model, role, 3);
        const stored = storedTensor(model, role);
        const [before] = await readTensors(gpu, stored) as Float32Array[];
        let changed: Float32Array;
        {
          using _on = changeTensor(model, role, change);
          deepStrictEqual(changedRoles(model), [role]);
          deepStrictEqual(storedTensor(model, role), stored);
          changed = await logitsOf(model, IDS);
          notDeepStrictEqual(await fingerprint(model), unedited);
        }
        deepStrictEqual(await fingerprint(model), unedited);
        notDeepStrictEqual(changed, plain);
        // The checkpoints are f32: the sum can be written into the stored tensor.
        writeTensor(gpu, stored, before.map((x, i) => x + change[i]));
        deepStrictEqual(await logitsOf(model, IDS), changed, role);
        writeTensor(gpu, stored, before);
      }
      deepStrictEqual(changedRoles(model), []);
      deepStrictEqual(await logitsOf(model, IDS), plain);
      gpu.memory.trim();
      deepStrictEqual(gpu.memory.now, now);
    }),
  );
}

Deno.test(
  "changes of one tensor add up and come off in any order, also twice the same, on stored f16",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder(), { tokenizer: false });
    const role = "layer.3.mlp.down";
    const [a, b] = [noise(model, role, 1), noise(model, role, 2)];
    const values = async () => (await readTensors(gpu, currentTensor(model, role)))[0];
    const base = toFloat32("F16", await values() as Uint8Array);
    const sum = (...changes: Float32Array[]) =>
      changes.reduce((total, change) => total.map((x, i) => x + change[i]), base);
    const first = changeTensor(model, role, a);
    const second = changeTensor(model, role, b);
    const third = changeTensor(model, role, a);
    deepStrictEqual(await values(), sum(a, b, a));
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    deepStrictEqual(await values(), sum(a, b));
    second[Symbol.dispose]();
    deepStrictEqual(await values(), sum(a));
    third[Symbol.dispose]();
    deepStrictEqual(toFloat32("F16", await values() as Uint8Array), base);
  }),
);

Deno.test(
  "changeTensor() refuses a role that the model does not have, and another size, and changes nothing",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("llama-tiny"), { tokenizer: false });
    gpu.memory.trim();
    const { now } = gpu.memory;
    const some = new Float32Array(5);
    throws(() => changeTensor(model, "layer.9.mlp.down", some), /has no weight "layer.9.mlp.down"/);
    throws(() => changeTensor(model, "layer.1.mlp.down.bias", some), /has no weight "layer.1.mlp.down.bias"/);
    throws(
      () => changeTensor(model, "layer.1.mlp.down", some),
      /Cannot make ΔW of layer.1.mlp.down .* 5 values/,
    );
    deepStrictEqual(changedRoles(model), []);
    deepStrictEqual(gpu.memory.now, now);
  }),
);
