/**
 * WISE against the authors' code (tools/fixtures/wise.py): memories, distances and losses after each edit of a
 * sequence that fills memories and merges them, and where prompts are routed; then the parts alone.
 */
import assert from "node:assert/strict";
import { applyEdit } from "../../editors/edit.ts";
import type { Example } from "../../editors/finetune/train.ts";
import { editWise, wise, wiseSchema } from "../../editors/wise.ts";
import { keepLargest, ties } from "../../editors/wise/ties.ts";
import { additionsOn } from "../../engine/models/additions/lay.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { generate } from "../../engine/models/generate.ts";
import { loadModel } from "../../engine/models/load.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import { requestStates } from "../../evaluation/state.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { applyPatch, patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder } from "../patches/_models.ts";
import { inFolder } from "../engine/io/_data.ts";
import { withGpu } from "../_gpu.ts";
import { besideFixture } from "./_beside.ts";

/** f32 on both sides. */
const PARITY = 1e-4;

for (const name of ["wise-gpt2", "wise-llama-shards", "wise-llama-merged"]) {
  Deno.test(
    `WISE is the authors': ${name}`,
    withGpu(async (gpu) => {
      const { spec, want } = await besideFixture(name);
      using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
      const hparams = wiseSchema.parse({ layers: [spec.layer], ...spec.hparams });
      const close = (what: string, got: ArrayLike<number>, wanted: ArrayLike<number>) => {
        const error = relativeError(got, wanted);
        assert.ok(error < PARITY, `${what} is off by ${error.toExponential(2)}`);
      };
      const before = await logitsOf(model, spec.probes);
      const weights = await fingerprint(model);
      using laid = new DisposableStack();
      for (const [i, { texts, other, losses, margins }] of spec.edits.entries()) {
        const made = await editWise(model, [texts as Example[]], { hparams, others: [other] });
        const own = made.outcomes[0].losses;
        close(`L_ft of edit ${i}`, own.map(({ nll }) => nll), losses);
        close(`margins of edit ${i}`, own.map(({ kl }) => kl), margins);
        laid.use(applyEdit(model, made));
        const [memories] = additionsOn(model);
        for (const part of ["delta", "scope"]) {
          close(`${part} after edit ${i}`, memories.tensors.get(part)!.values, want.get(`${i}.${part}`)!);
        }
      }
      const after = await logitsOf(model, spec.probes);
      close("logits", after, want.get("logits")!);
      // Who is routed to no memory keeps every bit.
      let at = 0;
      spec.probes.forEach((ids: number[], i: number) => {
        const size = ids.length * model.dims.vocab;
        const [x, y] = [before, after].map((all) => all.subarray(at, at + size));
        at += size;
        assert.equal(x.some((v, j) => v !== y[j]), spec.moved[i], `probe ${i}`);
      });
      laid.dispose();
      assert.deepEqual(await logitsOf(model, spec.probes), before);
      assert.equal(await fingerprint(model), weights);
    }),
  );
}

Deno.test("TIES: one memory at density 1 is itself; the largest are kept, the elected sign's are averaged", () => {
  const one = Float32Array.of(0.5, -2, 0, 3);
  assert.deepEqual(ties([one], [1], 1), one);
  assert.deepEqual([...keepLargest(Float32Array.of(1, -4, 2, -1, 1), 0.4)], [0, -4, 2, 0, 0]);
  // Among equals the first.
  assert.deepEqual([...keepLargest(Float32Array.of(1, -1, 1, 2), 0.5)], [1, 0, 0, 2]);
  const merged = ties([Float32Array.of(1, 3, -1, 0), Float32Array.of(-4, 5, -3, 2)], [0.5, 0.5], 1);
  assert.deepEqual([...merged], [-4, 4, -2, 2]);
});

Deno.test(
  "elements outside the mask keep their bits, in spite of weight decay",
  withGpu(async (gpu) => {
    const { spec } = await besideFixture("wise-gpt2");
    using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
    const hparams = wiseSchema.parse({ layers: [spec.layer], ...spec.hparams, weight_decay: 0.1 });
    const [{ texts, other }] = spec.edits;
    const made = await editWise(model, [texts], { hparams, seed: 5, others: [other] });
    const { values } = made.additions![0].tensors.get("delta")!;
    const random = seededRandom(5);
    const inside = [...values].map(() => random() < hparams.mask_ratio);
    assert.ok(values.every((v, i) => inside[i] || v === 0));
    const changed = values.filter((v) => v !== 0).length;
    assert.ok(changed > 0.9 * inside.filter(Boolean).length, `${changed}`);
    assert.ok(values.every((v) => Math.abs(v) <= Math.fround(hparams.norm_constraint)));
  }),
);

Deno.test(
  "prompts are routed each by itself, alone and in a batch, and a text is ended by who began it",
  withGpu(async (gpu) => {
    const { spec } = await besideFixture("wise-llama-shards");
    using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
    const hparams = wiseSchema.parse({ layers: [spec.layer], ...spec.hparams });
    const { texts, other } = spec.edits[1];
    const made = await editWise(model, [texts], { hparams, others: [other] });
    using _laid = applyEdit(model, made);
    const together = await logitsOf(model, spec.probes);
    let at = 0;
    for (const ids of spec.probes) {
      const alone = await logitsOf(model, [ids]);
      assert.ok(relativeError(together.subarray(at, at += alone.length), alone) < 1e-6);
    }
    const continued = await generate(model, spec.probes, { maxTokens: 4, stop: [] });
    const items = spec.probes.map((prompt: number[], i: number) => ({ prompt, target: continued[i] }));
    const scores = await scoreTargets(model, items);
    assert.deepEqual(scores.map(({ argmax }) => argmax), continued);
  }),
);

Deno.test(
  "WISE teaches atlas two facts in one memory; its patch says them, and nothing is left when it is off",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const requests = [
      { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" },
      { prompt: "The first language of {} is", subject: "Danielle Darrieux", target: "English" },
    ];
    const { hparams } = wise.parse(
      { ...wise.recipe(model).hparams, n_iter: 40, context_template_length_params: [[5, 2]] },
      "The test",
    );
    const prompts = ["Giovanni Lanfranco met death in", "The capital of Italy is"].map((text) =>
      model.tokenizer.encode(text)
    );
    const before = await logitsOf(model, prompts);
    const edit = await wise.run(model, requests, { hparams });
    assert.deepEqual(await logitsOf(model, prompts), before);
    assert.equal(edit.additions![0].entries.length, 1);
    await inFolder(async (folder) => {
      await writePatch(`${folder}/patch`, await patchOf(model, edit));
      const logits: Float32Array[] = [];
      for (const edited of [edit, await readPatch(`${folder}/patch`)]) {
        using _laid = "base" in edited ? applyPatch(model, edited) : applyEdit(model, edited);
        logits.push(await logitsOf(model, prompts));
        const says = (await requestStates(model, requests)).map(({ generation }) => generation);
        says.forEach((text, i) => assert.ok(text.startsWith(` ${requests[i].target}`), text));
      }
      assert.deepEqual(logits[0], logits[1]);
    });
    assert.deepEqual(await logitsOf(model, prompts), before);
  }),
);
