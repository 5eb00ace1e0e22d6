/** Edits as values: on a model, off again, stacked, and what happens when one does not fit. */
import { deepStrictEqual, notDeepStrictEqual, throws } from "node:assert/strict";
import { applyDeltas, type WeightDelta } from "../../editors/edit.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import { loadModel } from "../../engine/models/load.ts";
import { type Model, weight } from "../../engine/models/model.ts";
import { readTensors, writeTensor } from "../../engine/tensor/transfer.ts";
import { withGpu } from "../_gpu.ts";
import { assertClose } from "../engine/ops/_reference.ts";
import { logitsOf, modelFolder, noise } from "../patches/_models.ts";

const SEQUENCES = [[5, 17, 60, 2, 44, 90], [80, 1, 33]];
const MODELS = ["gpt2-tiny", "llama-tiny", "smollm2-tiny"];

const open = (gpu: Gpu, name: string) => loadModel(gpu, modelFolder(name), { tokenizer: false });
const deltasOf = (model: Model): WeightDelta[] => [
  noise(model, "layer.1.mlp.down", 1, 1),
  noise(model, "layer.0.attn.o", 2, 3),
  noise(model, "layer.1.mlp.down", 3, 5),
];

for (const name of MODELS) {
  Deno.test(
    `applyDeltas() and its undoing restore every bit of ${name}'s logits`,
    withGpu(async (gpu) => {
      using model = await open(gpu, name);
      const plain = await logitsOf(model, SEQUENCES);
      gpu.memory.trim();
      const { now } = gpu.memory;
      const deltas = deltasOf(model);
      {
        using _all = applyDeltas(model, deltas);
        notDeepStrictEqual(await logitsOf(model, SEQUENCES), plain);
      }
      deepStrictEqual(await logitsOf(model, SEQUENCES), plain);
      gpu.memory.trim();
      deepStrictEqual(gpu.memory.now, now);
      // Again, taken off in the order in which they came.
      const one = applyDeltas(model, deltas.slice(0, 1));
      const first = await logitsOf(model, SEQUENCES);
      const two = applyDeltas(model, deltas.slice(1));
      one[Symbol.dispose]();
      one[Symbol.dispose]();
      const rest = await logitsOf(model, SEQUENCES);
      notDeepStrictEqual(rest, first);
      two[Symbol.dispose]();
      deepStrictEqual(await logitsOf(model, SEQUENCES), plain);
      using _again = applyDeltas(model, deltas.slice(0, 1));
      deepStrictEqual(await logitsOf(model, SEQUENCES), first);
    }),
  );
}

Deno.test(
  "applyDeltas() adds the dense left·rightᵀ to the map, whichever way the weight is stored",
  withGpu(async (gpu) => {
    for (const name of ["gpt2-tiny", "llama-tiny"]) {
      using model = await open(gpu, name);
      const [delta] = deltasOf(model);
      const w = weight(model, delta.role);
      const [dense] = await readTensors(gpu, w.matrix) as Float32Array[];
      const changed = dense.map((value, at) => {
        const [o, i] = w.layout === "out_in"
          ? [Math.floor(at / w.in), at % w.in]
          : [at % w.out, Math.floor(at / w.out)];
        return value + delta.left[o] * delta.right[i];
      });
      let overlaid: Float32Array;
      {
        using _edit = applyDeltas(model, [delta]);
        overlaid = await logitsOf(model, SEQUENCES);
      }
      writeTensor(gpu, w.matrix, changed);
      // The sum is rounded once more in the dense form: 6e-8 of a weight in sums of 128.
      assertClose(overlaid, await logitsOf(model, SEQUENCES), 1e-5, name);
    }
  }),
);

Deno.test(
  "applyDeltas() leaves nothing behind when one of several deltas does not fit",
  withGpu(async (gpu) => {
    using model = await open(gpu, "llama-tiny");
    const plain = await logitsOf(model, SEQUENCES);
    gpu.memory.trim();
    const { now } = gpu.memory;
    const [good] = deltasOf(model);
    const cases: [WeightDelta, RegExp][] = [
      [{ ...good, role: "layer.9.mlp.down" }, /has no weight "layer.9.mlp.down"/],
      [
        { ...good, right: good.right.slice(1) },
        /Cannot make layer.1.mlp.down ΔW right \[88, 1\] from 87 values/,
      ],
    ];
    for (const [bad, message] of cases) {
      throws(() => applyDeltas(model, [good, bad]), message);
      deepStrictEqual(weight(model, good.role).overlays, []);
      deepStrictEqual(gpu.memory.now, now);
    }
    deepStrictEqual(await logitsOf(model, SEQUENCES), plain);
  }),
);
