/**
 * UltraEdit against the authors' own code (XiaojieGu/UltraEdit) on the same models and token ids, over two turns:
 * inputs and gradients of maps, the lifelong normaliser, and every map's change; and what is ours. Fixtures are made
 * by tools/fixtures/ultraedit.py.
 */
import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { applyDeltas } from "../../editors/edit.ts";
import type { Example } from "../../editors/finetune/train.ts";
import { denseOf, transposed } from "../../editors/host_weight.ts";
import { mapGradients } from "../../editors/map_gradients.ts";
import { type MemoryPart, readMemory, writeMemory } from "../../editors/memory.ts";
import { methodNamed } from "../../editors/methods.ts";
import { editTurn, type UltraEditHparams } from "../../editors/ultraedit.ts";
import { mapNamed } from "../../editors/ultraedit/names.ts";
import { Normaliser, normaliserFrom } from "../../editors/ultraedit/normaliser.ts";
import { InputError } from "../../engine/io/errors.ts";
import { loadModel } from "../../engine/models/load.ts";
import { weight } from "../../engine/models/model.ts";
import { withGpu } from "../_gpu.ts";
import { fixture, inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { normals } from "../engine/ops/_reference.ts";
import { modelFolder } from "../patches/_models.ts";
import { fixtures, tensorsOf } from "./_fixtures.ts";

/** The bound. */
const TOLERANCE = 1e-3;

function close(name: string, got: ArrayLike<number>, want: ArrayLike<number>, tolerance = TOLERANCE) {
  const error = relativeError(got, want);
  ok(error <= tolerance, `${name} is off by ${error.toExponential(2)} relative`);
}

interface Spec {
  model: string;
  hparams: Omit<UltraEditHparams, "layers">;
  turns: Example[][];
}

for (const name of ["ans-gpt2", "mask-gpt2", "ans-llama", "mask-llama"]) {
  Deno.test(
    `ultraedit agrees with the authors' code (${name})`,
    withGpu(async (gpu) => {
      const spec: Spec = JSON.parse(await Deno.readTextFile(`${fixtures}ultraedit/${name}.json`));
      const want = await tensorsOf(`${fixtures}ultraedit/${name}.safetensors`);
      using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
      const hparams = { ...spec.hparams, layers: [] };
      const roles = hparams.edit_modules.map((name) => mapNamed(model, name));
      const parts: MemoryPart[] = [];
      using applied = new DisposableStack();
      for (const [t, turn] of spec.turns.entries()) {
        const longest = turn.toSorted((a, b) =>
          b.prompt.length + b.target.length - a.prompt.length - a.target.length
        );
        for (const b of [0, 1]) {
          const some = longest.slice(2 * b, 2 * b + 2);
          const { maps } = await mapGradients(model, some, roles, hparams.token);
          roles.forEach((role, m) => {
            const { inputs, gradients } = maps.get(role)!;
            close(`inputs of ${role} in turn ${t}`, inputs, want.get(`${t}.${b}.${m}.keys`)!);
            close(`gradients of ${role} in turn ${t}`, gradients, want.get(`${t}.${b}.${m}.grads`)!);
          });
        }
        const { deltas, memory } = await editTurn(model, turn, hparams, parts);
        parts.push(memory);
        roles.forEach((role, m) => {
          const { in: width, out, layout } = weight(model, role);
          const shape = `${width}x${out}`;
          const { values } = memory.get(`normaliser.${shape}`)!;
          close(
            `mean of ${shape} after turn ${t}`,
            values.subarray(0, width + out),
            want.get(`${t}.${shape}.mean`)!,
          );
          close(
            `M2 of ${shape} after turn ${t}`,
            values.subarray(width + out),
            want.get(`${t}.${shape}.var`)!,
          );
          // The reference's shift is [in, out].
          const { dense } = deltas[m];
          const change = dense
            ? (layout === "out_in" ? transposed(dense, out, width) : dense)
            : transposed(denseOf(deltas[m]), out, width);
          close(`ΔW of ${role} in turn ${t}`, change, want.get(`${t}.${m}.shift`)!);
        });
        applied.use(applyDeltas(model, deltas));
      }
    }),
  );
}

Deno.test("the normaliser goes on from its stored part with the same bits", async () => {
  const [first, second] = [normals(12, 3), normals(20, 4)];
  const one = new Normaliser(4);
  one.update(first);
  await inFolder(async (folder) => {
    await writeMemory(`${folder}/part.safetensors`, new Map(one.parts("n")));
    const both = [[new Map(one.parts("n"))], [await readMemory(`${folder}/part.safetensors`)]];
    const values = both.map((parts) => {
      const next = normaliserFrom(parts, "n", 4);
      next.update(second);
      return next.normalise(first);
    });
    deepStrictEqual(values[1], values[0]);
  });
  strictEqual(normaliserFrom([], "n", 4).parts("n")[1][1].values[0], 0);
});

Deno.test("a single token is 0 where the authors' variance has no number", () => {
  const normaliser = new Normaliser(2);
  normaliser.update(Float64Array.of(3, -1));
  deepStrictEqual([...normaliser.normalise(Float64Array.of(3, -1))], [0, 0]);
  normaliser.update(Float64Array.of(5, -1));
  // Mean 4, M2 = 0 + 1·1·2²/2 = 2, std = √2.
  close("second", normaliser.normalise(Float64Array.of(5, -1)), [Math.SQRT1_2, 0], 1e-6);
});

Deno.test(
  "ultraedit refuses a single token of the target, and a map that the model has not",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, fixture("tiny-gpt2.gguf"));
    const method = methodNamed("ultraedit");
    const request = { prompt: "The mother tongue of {} is", subject: "Danielle", target: "w" };
    const run = (values: Record<string, unknown>) =>
      method.run(model, [request], { hparams: method.parse(values, "It").hparams });
    const edit_modules = ["layer.0.mlp.down"];
    const { deltas } = await run({ edit_modules, token: "mask" });
    strictEqual(deltas.length, 1);
    await rejects(
      run({ edit_modules: ["layer.0.mlp.gate"] }),
      (error: Error) =>
        error instanceof InputError && /no map "layer\.0\.mlp\.gate" to edit/.test(error.message),
    );
    const tokens = model.tokenizer.encode(" w", { special: false });
    if (tokens.length === 1) {
      await rejects(run({ edit_modules }), /nothing to tell a single token from/);
    }
  }),
);

Deno.test("ultraedit takes the authors' module names and EasyEdit's key, and knows its layers", () => {
  const method = methodNamed("ultraedit");
  const { hparams, unknown } = method.parse(
    { inner_params: ["model.layers.30.mlp.down_proj", "model.layers.29.mlp.up_proj"], token: "mask" },
    "It",
  );
  deepStrictEqual([hparams.layers, unknown], [[29, 30], []]);
  const file = { edit_modules: ["layer.0.mlp.down"], inner_params: ["model.layers.30.mlp.down_proj"] };
  deepStrictEqual(method.parse(file, "It").hparams.layers, [30], "a file's own, not the recipe's beside it");
  const weights = new Map([["layer.3.mlp.down", {}], ["layer.0.mlp.down", {}]]);
  // deno-lint-ignore no-explicit-any -- names are all that is looked at
  const named = (name: string) => mapNamed({ name: "m", weights: weights as any }, name);
  for (
    const name of [
      "layer.3.mlp.down",
      "model.layers.3.mlp.down_proj",
      "transformer.h.3.mlp.fc_out",
      "transformer.h.3.mlp.c_proj.weight",
    ]
  ) strictEqual(named(name), "layer.3.mlp.down");
  throws(() => named("layer.4.mlp.down"), /m has no map "layer\.4\.mlp\.down" to edit/);
});
