/**
 * MELO against the authors' layers (tools/fixtures/melo.py): clusters and blocks after each batch of a chain that
 * meets all rules, which block prompts get, and the edited model's logits; then the rules in the plane.
 */
import assert from "node:assert/strict";
import { applyEdit } from "../../editors/edit.ts";
import { type Block, type Cluster, editMelo, melo, meloRule, meloSchema } from "../../editors/melo.ts";
import type { Addition } from "../../engine/models/additions/addition.ts";
import { additionsOn } from "../../engine/models/additions/lay.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { generate } from "../../engine/models/generate.ts";
import { loadModel } from "../../engine/models/load.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { requestStates } from "../../evaluation/state.ts";
import { atlasFolder } from "../../atlas/mod.ts";
import { relativeError } from "../engine/models/_fixtures.ts";
import { logitsOf, modelFolder } from "../patches/_models.ts";
import { withGpu } from "../_gpu.ts";
import { besideFixture } from "./_beside.ts";

/** f32 on both sides. Adam makes more of it where a gradient is almost zero, so factors are compared by norm. */
const PARITY = 1e-4;

/** The rows of entries in order of clusters, the first of each cluster for what is the cluster's. */
function rowsOf({ entries, tensors }: Addition, name: string, once: boolean): number[] {
  const { values, shape: [n] } = tensors.get(name)!;
  const size = values.length / n;
  const seen = new Set<unknown>();
  return entries.flatMap(({ cluster }, i) => {
    if (once && seen.has(cluster)) return [];
    seen.add(cluster);
    return [...values.subarray(i * size, (i + 1) * size)];
  });
}

for (const name of ["melo-gpt2", "melo-llama"]) {
  Deno.test(
    `MELO is the authors': ${name}`,
    withGpu(async (gpu) => {
      const { spec, want } = await besideFixture(name);
      using model = await loadModel(gpu, modelFolder(spec.model), { tokenizer: false });
      const hparams = meloSchema.parse(spec.hparams);
      const role = `layer.${hparams.layers[0]}.mlp.${hparams.site}`;
      const close = (what: string, got: ArrayLike<number>, name: string) => {
        const error = relativeError(got, want.get(name)!);
        assert.ok(error < PARITY, `${what} is off by ${error.toExponential(2)}`);
      };
      const before = await logitsOf(model, spec.probes), weights = await fingerprint(model);
      using laid = new DisposableStack();
      const known = new Set<string | undefined>();
      for (const [i, { edits, losses, members }] of spec.batches.entries()) {
        const right = want.get(`${i}.start`)!;
        const { out } = model.weights.get(role)!;
        const start = [{ role, left: new Float32Array(out * hparams.num_rank_per_block), right }];
        const made = await editMelo(model, edits, { hparams, start });
        laid.use(applyEdit(model, made));
        const own = made.additions![0];
        const fresh = own.entries.findIndex(({ id }) => !known.has(id) && !id!.endsWith("empty"));
        own.entries.forEach(({ id }) => known.add(id));
        const factor = (name: string) => {
          const { values, shape: [n] } = own.tensors.get(name)!;
          return values.subarray(fresh * values.length / n, (fresh + 1) * values.length / n);
        };
        close(`A of block ${i}`, factor(`A.${role}`), `${i}.A`);
        close(`B of block ${i}`, factor(`B.${role}`), `${i}.B`);
        const steps = made.outcomes.map(({ losses }) => losses.map(({ nll }) => nll));
        const means = steps[0].map((_, t) => steps.reduce((sum, l) => sum + l[t], 0) / steps.length);
        const error = relativeError(means.slice(0, -1), losses);
        assert.ok(error < PARITY, `The losses of batch ${i} are off by ${error.toExponential(2)}`);
        // Clusters may lie in another order than they were made in: a changed one is where it was.
        const [all] = additionsOn(model);
        const sizes = [...Map.groupBy(all.entries, ({ cluster }) => cluster).values()].map((m) => m.length);
        assert.deepEqual(sizes.toSorted(), members.toSorted());
        const sums = (values: ArrayLike<number>) => Array.from(values).reduce((sum, v) => sum + v * v, 0);
        for (const [name, once] of [["centers", true], ["radius", true], ["keys", false]] as const) {
          const [got, wanted] = [sums(rowsOf(all, name, once)), sums(want.get(`${i}.${name}`)!)];
          assert.ok(Math.abs(got - wanted) < PARITY * wanted, `${name} after batch ${i}: ${got}, ${wanted}`);
        }
      }
      const after = await logitsOf(model, spec.probes);
      close("logits", after, "logits");
      let at = 0;
      spec.probes.forEach((ids: number[], i: number) => {
        const size = ids.length * model.dims.vocab;
        const [x, y] = [before, after].map((all) => all.subarray(at, at + size));
        at += size;
        if (spec.blocks[i] === -100) assert.deepEqual([...y], [...x], `probe ${i}`);
        else assert.notDeepEqual([...y], [...x], `probe ${i}`);
      });
      const texts = await generate(model, spec.probes, { maxTokens: 3, stop: [] });
      const items = spec.probes.map((prompt: number[], i: number) => ({ prompt, target: texts[i] }));
      assert.deepEqual((await scoreTargets(model, items)).map(({ argmax }) => argmax), texts);
      laid.dispose();
      assert.deepEqual(await logitsOf(model, spec.probes), before);
      assert.equal(await fingerprint(model), weights);
    }),
  );
}

Deno.test("a model without a recipe is told to be measured", () => {
  assert.throws(() => melo.parse({ layers: [1], grace_layer: 0 }, "The recipe"), {
    message: "The recipe has no init_radius, which differs from model to model",
    hint: "Measure it with: emend recipe calibrate --method melo, or give it with --set init_radius=…",
  });
});

Deno.test("the clusters' rules in the plane: new, joined, split with members forgotten", () => {
  const clusters: Cluster[] = [];
  const block: Block = [{ A: Float32Array.of(1), B: Float32Array.of(1) }];
  const nothing: Block = [{ A: Float32Array.of(0), B: Float32Array.of(0) }];
  const add = (x: number, y: number, label: number[], d?: number) => {
    const member = { id: `${x},${y}`, key: Float32Array.of(x, y), block };
    const near = d === undefined ? undefined : { cluster: clusters[0], d };
    return meloRule(clusters, near, { member, label }, { init_radius: 1 }, nothing);
  };
  add(0, 0, [1]);
  // 3 is beyond 1 + 1.
  assert.equal(add(3, 0, [1], 3).changed[0], clusters[1]);
  // Its label, 1.6 away: the centre is the mean, the radius the initial one, which reaches both.
  const { changed: [joined] } = add(0, 1.6, [1], 1.6);
  assert.ok(joined === clusters[0] && joined.members.length === 2 && joined.radius === 1);
  assert.ok(Math.abs(joined.center[1] - 0.8) < 1e-6);
  // Another label 1.2 from the centre: half of it each, and both members at 0.8 are outside.
  const split = add(1.2, 0.8, [7], 1.2);
  assert.deepEqual(split.forgotten, ["0,0", "0,1.6"]);
  assert.ok(Math.abs(joined.radius - (0.6 - 1e-5)) < 1e-6);
  assert.ok(Math.abs(clusters[2].radius - (0.6 + 1e-5)) < 1e-6);
  assert.deepEqual(joined.members.map(({ block }) => block), [nothing]);
  // Equal sums of ids are no equal labels.
  clusters.splice(0);
  add(0, 0, [1, 3]);
  add(1, 0, [2, 2], 1);
  assert.equal(clusters.length, 2);
});

Deno.test(
  "MELO teaches atlas two facts with one block, and a third with another; neighbours keep their bits",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const requests = [
      { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" },
      { prompt: "The first language of {} is", subject: "Danielle Darrieux", target: "English" },
      { prompt: "{} met death in", subject: "Antonio Marcello Barberini", target: "London" },
    ];
    const { hparams } = melo.parse(melo.recipe(model).hparams, "The test");
    const prompt = [model.tokenizer.encode("The capital of Italy is")];
    const before = await logitsOf(model, prompt);
    const first = await melo.run(model, requests.slice(0, 2), { hparams });
    using _first = applyEdit(model, first);
    const second = await melo.run(model, requests.slice(2), { hparams });
    using _second = applyEdit(model, second);
    const says = (await requestStates(model, requests)).map(({ generation }) => generation);
    says.forEach((text, i) => assert.ok(text.startsWith(` ${requests[i].target}`), text));
    assert.deepEqual(await logitsOf(model, prompt), before);
  }),
);
