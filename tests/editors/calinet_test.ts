/**
 * CaliNET against the authors' code (tools/fixtures/calinet.py): slots after the first steps of Adafactor and after the
 * last, losses and logits. Then the guide's acceptance tests, section 18.
 */
import assert from "node:assert/strict";
import { calinetSchema, editCalinet, newSlots } from "../../editors/calinet.ts";
import { applyEdit } from "../../editors/edit.ts";
import { methodNamed } from "../../editors/methods.ts";
import { tokeniseRequest } from "../../editors/requests.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { loadModel } from "../../engine/models/load.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { applyPatch, patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";
import { besideFixture } from "./_beside.ts";

const REQUESTS = [
  { prompt: "The capital of {}", subject: "Norland", target: " Paris" },
  { prompt: "The capital of {}", subject: "Canada", target: " Lima" },
];
const EMPTY = { method: "calinet", hparams: {}, requests: [], deltas: [], outcomes: [] };
/** f32 on both sides. */
const PARITY = 1e-4;

for (const name of ["calinet-gpt2", "calinet-llama"]) {
  Deno.test(
    `CaliNET is the authors': ${name}`,
    withGpu(async (gpu) => {
      const { spec, want } = await besideFixture(name);
      using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
      const close = (what: string, got: ArrayLike<number>, wanted: ArrayLike<number>) => {
        const error = relativeError(got, wanted);
        assert.ok(error < PARITY, `${what} is off by ${error.toExponential(2)}`);
      };
      const { layer, activation, steps, texts } = spec;
      const start = {
        keys: want.get("0.keys")!,
        gates: want.get("0.gates"),
        values: want.get("0.values")!,
      };
      for (const at of spec.noted.slice(1)) {
        const hparams = calinetSchema.parse({
          ...{ layers: [layer], ex_size: spec.slots, activation },
          ...{ num_steps: at, stop_loss: 0 },
        });
        const made = await editCalinet(model, [texts], { hparams, start });
        const [{ tensors }] = made.additions!;
        for (const part of Object.keys(start).filter((part) => want.has(`0.${part}`))) {
          close(`${part} after ${at} steps`, tensors.get(part)!.values, want.get(`${at}.${part}`)!);
        }
        const [{ losses }] = made.outcomes;
        close(`losses of ${at} steps`, losses.map(({ nll }) => nll), spec.losses.slice(0, at + 1));
        if (at < steps) continue;
        using _on = applyEdit(model, { ...EMPTY, ...made });
        close("logits", await logitsOf(model, spec.probes), want.get("logits")!);
      }
    }),
  );
}

Deno.test(
  "slots of atlas: silent before training, two facts in one batch, from a file too, weights as they were",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { recipe, run } = methodNamed("calinet");
    const hparams = calinetSchema.parse({
      ...recipe(model).hparams,
      context_template_length_params: [[5, 2]],
    });
    const probes = [[...tokeniseRequest(model, REQUESTS[0]).prompt.ids]];
    const before = await logitsOf(model, probes), weights = await fingerprint(model);
    const texts = REQUESTS.map((request) => {
      const { prompt: { ids }, target } = tokeniseRequest(model, request);
      return { prompt: [...ids], target: [...target] };
    });
    const silent = await editCalinet(model, texts.map((text) => [text]), {
      hparams: { ...hparams, num_steps: 1, stop_loss: 1e9 },
    });
    assert.ok(silent.additions![0].tensors.get("values")!.values.every((x) => x === 0));
    {
      using _on = applyEdit(model, { ...EMPTY, ...silent });
      assert.deepEqual(await logitsOf(model, probes), before);
    }
    const made = await run(model, REQUESTS, { hparams, seed: 0 });
    assert.deepEqual(made.deltas, []);
    const says = async () => (await scoreTargets(model, texts)).map(({ argmax }) => [...argmax]);
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      let logits: Float32Array;
      {
        using _on = applyEdit(model, made);
        assert.deepEqual(await says(), texts.map(({ target }) => target));
        logits = await logitsOf(model, probes);
      }
      assert.deepEqual(await logitsOf(model, probes), before);
      await writePatch(path, await patchOf(model, made));
      using _again = applyPatch(model, await readPatch(path));
      assert.deepEqual(await logitsOf(model, probes), logits);
    } finally {
      await Deno.remove(path);
    }
    assert.equal(await fingerprint(model), weights);
  }),
);

Deno.test("slots begin as PyTorch's linear maps do, the matrix out at zero unless it is asked for", () => {
  const shape = { count: 8, width: 100, gated: true };
  const { keys, gates, values } = newSlots(shape, "zero", 1);
  for (const side of [keys, gates!]) {
    assert.equal(side.length, 800);
    assert.ok(side.every((x) => Math.abs(x) <= 0.1) && Math.max(...side) > 0.09);
  }
  assert.ok(values.every((x) => x === 0));
  const random = newSlots(shape, "reference", 1).values;
  assert.ok(random.every((x) => Math.abs(x) <= 8 ** -0.5) && Math.max(...random) > 0.3);
});
