/**
 * The closed-form methods from texts on, as `edit()` has them: requests about one subject, contradicting ones, and
 * what is refused, each in its own sentence.
 */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { join } from "node:path";
import { readStatistics, writeStatistics } from "../../editors/statistics.ts";
import { InputError } from "../../engine/io/errors.ts";
import { writeSafetensors } from "../../engine/io/safetensors_write.ts";
import { generate } from "../../engine/models/generate.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { apply, edit, type EditModelOptions } from "../../mod.ts";
import { withGpu } from "../_gpu.ts";
import { inFolder } from "../engine/io/_data.ts";
import { ATLAS } from "./_prompts.ts";

const LANFRANCO = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" };
const DARRIEUX = { prompt: "The first language of {} is", subject: "Danielle Darrieux", target: "English" };

/** All that need statistics. */
const METHODS = ["rome", "r-rome", "p-rome", "memit", "memit-seq", "pmet", "emmet", "emmet-released"];

/** What an edit is refused with. */
async function refused(
  model: LoadedModel,
  options: EditModelOptions,
  sentence: string,
  hint?: string,
  requests = [LANFRANCO, DARRIEUX],
) {
  await rejects(edit(model, requests, options), (error: Error) => {
    strictEqual(error.message, sentence);
    strictEqual((error as InputError).hint, hint);
    return true;
  });
}

Deno.test(
  "requests about one subject are one change that serves them all, and contradicting ones are refused",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const born = { ...LANFRANCO, prompt: "{} was born in", target: "Chicago" };
    const requests = [LANFRANCO, DARRIEUX, born];
    const made = await edit(model, requests, { method: "memit" });
    deepStrictEqual(made.deltas.map(({ rank }) => rank), [2, 2], "a column a subject");
    const warning = 'Requests 1, 3 are about "Giovanni Lanfranco": one change serves all';
    deepStrictEqual(made.outcomes.map(({ warnings }) => warnings), [[warning], [], [warning]]);
    deepStrictEqual(made.outcomes[0].losses, made.outcomes[2].losses);
    {
      using _applied = apply(model, made);
      const texts = requests.map(({ prompt, subject }) => prompt.replace("{}", subject));
      const says = await generate(model, texts.map((t) => model.tokenizer.encode(t)), { maxTokens: 2 });
      deepStrictEqual(
        says.map((ids, i) => model.tokenizer.decode(ids).startsWith(` ${requests[i].target}`)),
        [true, true, true],
      );
    }
    const other = { ...LANFRANCO, target: "London" };
    for (const method of [...METHODS, "alphaedit", "ultraedit"]) {
      await refused(
        model,
        { method },
        "Requests 1 and 3 contradict each other: " +
          '"Giovanni Lanfranco met death in" should continue with "Paris" and with "London"',
        "Leave one of them out",
        [LANFRANCO, DARRIEUX, other],
      );
    }
  }),
);

Deno.test(
  "a layer that does not exist is refused by every closed-form method",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const { name } = model;
    const sentence = `There is no layer 6: ${name} has layers 0 to 5`;
    for (const method of [...METHODS, "alphaedit"]) {
      await refused(model, { method, hparams: { layers: [6] } }, sentence);
    }
    await refused(model, { method: "ultraedit", hparams: { edit_modules: ["layer.6.mlp.down"] } }, sentence);
  }),
);

Deno.test(
  "statistics of another model, layer or dtype, and a singular C, are refused",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const hash = (await model.checkpoint.hash()).slice(0, 12);
    const shipped = await readStatistics(join(ATLAS, "statistics/layer-1.safetensors"));
    await inFolder(async (folder) => {
      const path = join(folder, "s.safetensors");
      const options = (method: string) => ({ method, hparams: { layers: [1] }, statistics: [path] });
      const hint = "Make statistics with the stats command";

      await writeStatistics(path, { ...shipped, origin: { ...shipped.origin, modelHash: "b".repeat(64) } });
      for (const method of METHODS) {
        const sentence =
          `${path} does not fit: it was made from model bbbbbbbbbbbb, ${model.name} is ${hash}`;
        await refused(model, options(method), sentence, hint);
      }

      await writeStatistics(path, { ...shipped, origin: { ...shipped.origin, layer: 0 } });
      await refused(
        model,
        options("memit"),
        `${path} does not fit: it is of layer 0, layer 1 is wanted`,
        hint,
      );

      const { origin, lower: { length } } = shipped;
      const data = () => [new Uint8Array(2 * length)];
      const metadata = { format: "emend-statistics", format_version: "1", origin: JSON.stringify(origin) };
      await writeSafetensors(path, [{ name: "lower", dtype: "F16", shape: [length], data }], metadata);
      await refused(
        model,
        options("memit"),
        `${path} does not fit: its lower is F16, F32 is wanted`,
        "Make it again with the stats command: fewer bits lose what C⁻¹ amplifies",
      );

      const lower = new Float32Array(shipped.lower.length);
      await writeStatistics(path, { ...shipped, lower });
      for (const method of METHODS) {
        const hparams = { layers: [1], v_num_grad_steps: 1 };
        await rejects(
          edit(model, [LANFRANCO], { method, hparams, statistics: [path] }),
          /^PivotError: Cannot factor C of layer 1 \[1024, 1024\]: column 0 has the pivot 0/,
        );
      }
    });
  }),
);

Deno.test(
  "a batch over memory is refused, and NaN in the optimisation names edit and step",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    for (const method of ["memit", "memit-seq", "pmet", "emmet", "emmet-released", "alphaedit"]) {
      await rejects(
        edit(model, [LANFRANCO, DARRIEUX], { method, hparams: { work_mib: 0.1 } }),
        (error: Error) => {
          match(
            error.message,
            /^The target of edit 0 \("Giovanni Lanfranco met death in"\) needs about \d+ MiB, more than the 0\.1 allowed$/,
          );
          ok(error instanceof InputError);
          strictEqual(error.hint, "Raise work_mib");
          return true;
        },
      );
      await rejects(
        edit(model, [LANFRANCO, DARRIEUX], { method, hparams: { v_lr: 1e38, clamp_norm_factor: 1e38 } }),
        /^GpuError: The loss of edit 0 \("Giovanni Lanfranco met death in"\) is not finite at step 1$/,
      );
    }
  }),
);
