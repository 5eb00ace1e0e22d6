/**
 * T-Patcher against the authors' code (tools/fixtures/t_patcher.py): patches at creation, after the first steps and at
 * the end, all losses, and logits. Then the guide's acceptance tests, section 18, and edits of atlas one after another.
 */
import assert from "node:assert/strict";
import { applyEdit, type Edit } from "../../editors/edit.ts";
import { methodNamed } from "../../editors/methods.ts";
import { tokeniseRequest } from "../../editors/requests.ts";
import { additionOf, editTPatcher, tPatcher, tPatcherSchema } from "../../editors/t_patcher.ts";
import { readMistakes, readQueries } from "../../editors/tpatcher/mistakes.ts";
import { ordinaryQueries } from "../../editors/tpatcher/ordinary.ts";
import { finishPatches, newPatches, splitRows } from "../../editors/tpatcher/patches.ts";
import { trainPatches } from "../../editors/tpatcher/train.ts";
import { additionsOn } from "../../engine/models/additions/lay.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { loadModel } from "../../engine/models/load.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { inFolder } from "../engine/io/_data.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";
import { besideFixture } from "./_beside.ts";

const REQUESTS = [
  { prompt: "The capital of {}", subject: "Norland", target: " Paris" },
  { prompt: "The capital of {}", subject: "Canada", target: " Lima" },
];
/** A small memory, so that the tests are short. */
const SET = { memory_size: 400 };

const EMPTY = { method: "t-patcher", hparams: {}, requests: [], deltas: [], outcomes: [] };
/** f32 on both sides. */
const PARITY = 1e-4;

for (const name of ["t-patcher-gpt2", "t-patcher-gpt2-released", "t-patcher-llama"]) {
  Deno.test(
    `T-Patcher is the authors': ${name}`,
    withGpu(async (gpu) => {
      const { spec, want } = await besideFixture(name);
      using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
      const { layer, prompt, target, memory, steps } = spec;
      const close = (what: string, got: ArrayLike<number>, wanted: ArrayLike<number>) => {
        const error = relativeError(got, wanted);
        assert.ok(error < PARITY, `${what} is off by ${error.toExponential(2)}`);
      };
      const hparams = tPatcherSchema.parse({ layers: [layer], ...spec.hparams });
      const before = await logitsOf(model, spec.probes);
      const read = await readMistakes(model, layer, { prompt, target }, {
        activation: hparams.activation,
        patches: [],
      });
      const mistakes = read.mistakes.slice(0, hparams.max_add_neuron_num);
      assert.deepEqual(mistakes, spec.mistakes);
      const [train, validate] = await Promise.all(
        [memory.train, memory.validate].map((texts) => readQueries(model, layer, texts)),
      );
      const values = want.get("0.v0")!;
      const fresh = newPatches(mistakes.map((t) => read.queries[t]), values, hparams.amplify_con);
      close("keys at creation", fresh.keys, want.get("0.keys")!);
      close("alpha at creation", fresh.alpha, want.get("0.alpha")!);
      // Set apart by the fixture, so that roundings do not decide which patch is the least active.
      fresh.bias.set(want.get("0.bias")!);
      for (const at of spec.noted.slice(1)) {
        const given = { ...hparams, max_edit_step: at === steps ? hparams.max_edit_step : at };
        const made = await trainPatches(model, { prompt, target }, { ...read, mistakes }, fresh, given, {
          ...{ train, validate },
        });
        const { patches, losses, took } = made;
        assert.equal(losses.length - 1, at);
        for (const [part, numbers] of Object.entries(patches)) {
          close(`${part} after ${at} steps`, numbers, want.get(`${at}.${part === "values" ? "v0" : part}`)!);
        }
        const rows = losses.slice(0, -1).map(({ nll, kl, wd }) => [nll, kl, wd]);
        [0, 1, 2].forEach((term) =>
          close(
            `term ${term} of ${at} steps`,
            rows.map((row) => row[term]),
            spec.losses.slice(0, at).map((row: number[]) => row[term]),
          )
        );
        if (at < steps) continue;
        assert.equal(took, spec.says);
        const finished = finishPatches(patches);
        const silent = [
          additionOf(layer, hparams.activation, [{ ...finished, values: finished.values.map(() => 0) }]),
        ];
        {
          using _on = applyEdit(model, { ...EMPTY, additions: silent });
          assert.deepEqual(await logitsOf(model, spec.probes), before);
        }
        const additions = [additionOf(layer, hparams.activation, [finished])];
        using _on = applyEdit(model, { ...EMPTY, additions });
        close("logits", await logitsOf(model, spec.probes), want.get("logits")!);
      }
      assert.deepEqual(await logitsOf(model, spec.probes), before);
    }),
  );
}

Deno.test(
  "patches of atlas: activation 1 at creation, one a mistake, edits side by side, weights as they were",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const method = methodNamed("t-patcher");
    const recipe = method.recipe(model);
    const { hparams } = method.parse({ ...recipe.hparams, ...SET }, "The recipe");
    const [layer] = hparams.layers;
    const probe = [...tokeniseRequest(model, REQUESTS[0]).prompt.ids];
    const before = await logitsOf(model, [probe]), weights = await fingerprint(model);
    const texts = REQUESTS.map((request) => {
      const { prompt: { ids }, target } = tokeniseRequest(model, request);
      return { prompt: [...ids], target: [...target] };
    });
    using laid = new DisposableStack();
    for (const [i, request] of REQUESTS.entries()) {
      const read = await readMistakes(model, layer, texts[i], { activation: "gelu_new", patches: [] });
      for (const t of read.mistakes) {
        const q = read.queries[t], { keys } = newPatches([q], q, 10);
        const z = keys.reduce((sum, x, j) => sum + x * q[j], 0);
        assert.ok(Math.abs(z - 1) < 1e-6, `pre-activation ${z}`);
      }
      const edit = await method.run(model, [request], { hparams, seed: 0 });
      assert.deepEqual(edit.deltas, []);
      assert.equal(edit.additions![0].entries.length, read.mistakes.length);
      laid.use(applyEdit(model, edit));
    }
    assert.equal(additionsOn(model).length, 1);
    const scored = await scoreTargets(model, texts);
    assert.deepEqual(scored.map(({ argmax }) => [...argmax]), texts.map(({ target }) => target));
    await assert.rejects(
      method.run(model, [REQUESTS[0]], { hparams, seed: 0 }),
      /there is no mistake to patch/,
    );
    await assert.rejects(
      method.run(model, REQUESTS, { hparams: { ...hparams, layers: [layer - 1] }, seed: 0 }),
      /patches the last layer, not layer 4/,
    );
    laid.dispose();
    assert.deepEqual(await logitsOf(model, [probe]), before);
    assert.equal(await fingerprint(model), weights);
  }),
);

Deno.test(
  "later patches are silent where the layer read an earlier edit, but for a fact that is edited again",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const requests = [...REQUESTS, { ...REQUESTS[0], target: " Rome" }];
    const [first, second, again] = requests.map((request) => {
      const { prompt: { ids }, target } = tokeniseRequest(model, request);
      return { prompt: ids, target };
    });
    const { hparams } = tPatcher.parse(tPatcher.recipe(model).hparams, "The recipe");
    const [layer] = hparams.layers;
    // Next to no ordinary text, which would keep them silent elsewhere by itself.
    const [train, validate] = await Promise.all(
      ["It", "On"].map((text) => readQueries(model, layer, [model.tokenizer.encode(text)])),
    );
    const given = { hparams, seed: 0, ordinary: { train, validate } };
    const { inputs } = await readMistakes(model, layer, first, { activation: "gelu_new", patches: [] });
    /** The highest pre-activation of the edit's patches at what the layer reads in the first. */
    const loudest = ({ additions }: Pick<Edit, "additions">, edit: number, at = inputs) => {
      const [{ entries, tensors }] = additions!;
      const { keys, bias } = Object.fromEntries([...tensors].map(([name, { values }]) => [name, values]));
      const activations = entries.flatMap((entry, i) =>
        entry.edit !== edit
          ? []
          : at.map((q) => q.reduce((z, x, j) => z + x * keys[i * q.length + j], bias[i]))
      );
      return Math.max(...activations);
    };
    const one = await editTPatcher(model, [first], { ...given, past: [] });
    const past = splitRows(one.memory!.get("queries")!);
    assert.deepEqual(past, inputs.slice(1));
    {
      using _on = applyEdit(model, { ...EMPTY, ...one });
      const forgetful = await editTPatcher(model, [second], { ...given, past: [] });
      const mindful = await editTPatcher(model, [second], { ...given, past });
      assert.ok(loudest(forgetful, 0) > 0, `${loudest(forgetful, 0)}`);
      // Its GELU is then below 1e-4 of it.
      assert.ok(loudest(mindful, 0, past) < -5, `${loudest(mindful, 0, past)}`);
    }
    const all = await editTPatcher(model, [first, second, again], { ...given, past: [] });
    assert.ok(loudest(all, 1, past) < -5);
    assert.ok(loudest(all, 2, past.slice(0, -1)) < -5);
    using _on = applyEdit(model, { ...EMPTY, ...all });
    const says = await scoreTargets(model, [second, again]);
    assert.deepEqual(says.map(({ argmax }) => [...argmax]), [second, again].map(({ target }) => [...target]));
  }),
);

Deno.test(
  "the memory of ordinary text is kept for the same weights, and made again where it is damaged",
  withGpu((gpu) =>
    inFolder(async (folder) => {
      const before = Deno.env.get("XDG_CACHE_HOME");
      Deno.env.set("XDG_CACHE_HOME", folder);
      try {
        const given = { layer: 5, size: 64, seed: 3 };
        const read = async () => {
          using model = await loadModel(gpu, await atlasFolder());
          return await ordinaryQueries(model, given);
        };
        const made = await read();
        assert.deepEqual([made.train.length, made.validate.length], [32, 32]);
        const [{ name }] = [...Deno.readDirSync(`${folder}/emend/ordinary`)];
        const path = `${folder}/emend/ordinary/${name}`;
        const { mtime } = Deno.statSync(path);
        assert.deepEqual(await read(), made);
        assert.deepEqual(Deno.statSync(path).mtime, mtime);
        Deno.truncateSync(path, 1000);
        assert.deepEqual(await read(), made);
        assert.ok(Deno.statSync(path).size > 1000);
      } finally {
        if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
        else Deno.env.set("XDG_CACHE_HOME", before);
      }
    })
  ),
);
