/** EasyEdit's SERAC: mixture and losses against EasyEdit's code, and answers that two models give together. */
import assert from "node:assert/strict";
import { atlasFolder } from "../../atlas/mod.ts";
import { applyEdit } from "../../editors/edit.ts";
import { nearestFacts } from "../../editors/prompts/scope.ts";
import { pairSource, type SeracRecord } from "../../editors/serac/data.ts";
import { seracEasyEdit } from "../../editors/serac/serac.ts";
import { trainMixture } from "../../editors/serac/train_mixture.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { generate } from "../../engine/models/generate.ts";
import { loadModel } from "../../engine/models/load.ts";
import { mixture, nextLogits } from "../../engine/models/next.ts";
import { addRouter, unrouted } from "../../engine/models/route.ts";
import { likeliest, logSumExp, seededRandom } from "../../engine/models/sample.ts";
import { Tape } from "../../engine/ops/context.ts";
import { fill } from "../../engine/ops/elementwise.ts";
import { logSoftmax } from "../../engine/ops/vocab_loss.ts";
import { mixtureLoss } from "../../engine/ops/mixture_loss.ts";
import { scopeLoss } from "../../engine/ops/scope_loss.ts";
import { createTensor } from "../../engine/tensor/tensor.ts";
import { fromHost } from "../../engine/tensor/transfer.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { evaluate, withGpu } from "../_gpu.ts";

const TOLERANCE = 1e-4;
const close = (got: ArrayLike<number>, want: ArrayLike<number>, what: string) => {
  assert.equal(got.length, want.length);
  for (let i = 0; i < want.length; i++) {
    assert.ok(Math.abs(got[i] - want[i]) <= TOLERANCE, `${what} ${i}: ${got[i]}, not ${want[i]}`);
  }
};

const fixture = JSON.parse(
  await Deno.readTextFile(new URL("../fixtures/serac/mixture.json", import.meta.url)),
);
const { tests, memories, tokens, vocab, width } = fixture;
const rowsOf = (values: number[], size: number) =>
  Array.from(
    { length: values.length / size },
    (_, i) => Float32Array.from(values.slice(i * size, (i + 1) * size)),
  );
const memory = {
  scope: {
    ...{ rule: "nearest" as const, alone: false, measure: "distance" as const, limit: Math.LN2, soft: true },
    encoder: { kind: "states" as const, layers: [0] },
  },
  facts: rowsOf(fixture.memory, width).map((embedding) => ({ text: "", front: "", embedding })),
};

Deno.test("the mixture of EasyEdit's forward: nearest memory, share e^−D, ε", () => {
  for (const part of [fixture.edit, fixture.loc]) {
    const matches = nearestFacts(memory, Float32Array.from(part.test));
    const counterfactual = rowsOf(part.counterfactual, vocab), base = rowsOf(part.base, vocab);
    const got = matches.flatMap((match, test) =>
      Array.from({ length: tokens }, (_, t) => {
        const other = counterfactual[(test * memories + match!.fact) * tokens + t];
        return [...mixture(base[test * tokens + t], other, Math.exp(-match!.value))];
      }).flat()
    );
    close(got, part.mixture, "mixture");
  }
});

for (const name of ["edit", "loc"] as const) {
  Deno.test(
    `the loss of "${name}" and its gradients are those of EasyEdit's trainer`,
    withGpu(async (gpu) => {
      const part = fixture[name];
      const matches = nearestFacts(memory, Float32Array.from(part.test));
      const rows = Array.from({ length: tests * tokens }, (_, r) => r)
        .filter((r) => name === "loc" || fixture.labels[r] >= 0);
      const n = rows.length, testOf = (r: number) => Math.floor(r / tokens);
      const counterfactual = rowsOf(part.counterfactual, vocab), base = rowsOf(part.base, vocab);
      const at = (r: number) => (testOf(r) * memories + matches[testOf(r)]!.fact) * tokens + r % tokens;
      const flat = (list: Float32Array[]) => Float32Array.from(list.flatMap((row) => [...row]));
      const upload = (label: string, values: Float32Array, cols: number) =>
        fromHost(gpu, label, [n, cols], values);
      const embeddings = rowsOf(part.test, width);
      const z = upload("z", flat(rows.map((r) => counterfactual[at(r)])), vocab);
      const a = upload("asked", flat(rows.map((r) => embeddings[testOf(r)])), width);
      const b = upload(
        "edits",
        flat(rows.map((r) => memory.facts[matches[testOf(r)]!.fact].embedding)),
        width,
      );
      const raw = upload("base", flat(rows.map((r) => base[r])), vocab);
      const ones = fromHost(gpu, "ones", [n], new Float32Array(n).fill(1));
      const positive = fromHost(gpu, "all", [n], new Uint32Array(n).fill(1));
      const targets = fromHost(
        gpu,
        "targets",
        [n],
        Uint32Array.from(rows, (r) => Math.max(0, fixture.labels[r])),
      );
      const weights = fromHost(
        gpu,
        "weights",
        [n],
        new Float32Array(n).fill((name === "edit" ? 0.1 : 1) / n),
      );
      const logBase = createTensor(gpu, "log base", [n, vocab]);
      const [losses, dz, da, db] = await evaluate(gpu, (ctx) => {
        const tape = new Tape();
        for (const t of [z, a, b]) tape.require(t);
        logSoftmax(ctx, raw, logBase);
        const distance = scopeLoss({ ...ctx, tape }, { a, b, positive, weights: ones });
        const klStart = name === "edit" ? n : 0;
        const y = mixtureLoss({ ...ctx, tape }, { base: logBase, z, distance, targets, weights, klStart });
        const seed = createTensor(gpu, "seed", [n]);
        fill(ctx, seed, 1);
        tape.setGrad(y, seed);
        tape.backward();
        return [y, tape.grad(z)!, tape.grad(a)!, tape.grad(b)!];
      });
      close([losses.reduce((x, y) => x + y, 0)], [part.loss], "loss");
      const toZ = new Float64Array(part.to_counterfactual.length);
      const toEmbeddings = new Float64Array(part.to_embeddings.length);
      rows.forEach((r, i) => {
        for (let v = 0; v < vocab; v++) toZ[at(r) * vocab + v] += dz[i * vocab + v];
        for (let d = 0; d < width; d++) {
          toEmbeddings[matches[testOf(r)]!.fact * width + d] += db[i * width + d];
          toEmbeddings[(memories + testOf(r)) * width + d] += da[i * width + d];
        }
      });
      close(toZ, part.to_counterfactual, "gradient to the counterfactual model");
      close(toEmbeddings, part.to_embeddings, "gradient to the classifier");
    }),
  );
}

Deno.test(
  "scores, next tokens and texts of two models together are those of the mixture, place by place",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { tokenizer } = model;
    const front = tokenizer.encode("The capital of France is Rome."), share = 0.3;
    const prompt = tokenizer.encode("The capital of Italy is"), target = tokenizer.encode(" San Marino");
    const by = async (extra: readonly number[]) => {
      const [own, other] = await nextLogits(unrouted(model), [[...prompt, ...extra], [
        ...front,
        ...prompt,
        ...extra,
      ]]);
      return mixture(own, other, share);
    };
    const wanted = [], text: number[] = [];
    for (const [t, id] of target.entries()) {
      const row = await by(target.slice(0, t));
      wanted.push(row[id] - logSumExp(row));
    }
    for (let t = 0; t < 3; t++) text.push(likeliest(await by(text), 1)[0]);
    using _ = addRouter(
      model,
      (prompts) =>
        Promise.resolve(prompts.map((prompt) => ({ model: unrouted(model), front, prompt, share }))),
    );
    const [score] = await scoreTargets(model, [{ prompt, target }]);
    close(score.logProbs, wanted, "score");
    close((await nextLogits(model, [prompt]))[0], await by([]), "next token");
    assert.deepEqual(await generate(model, [prompt], { maxTokens: 3, stop: [] }), [text]);
  }),
);

Deno.test(
  "training by EasyEdit's objective lowers it and leaves the base alone",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const records = ["France", "Italy", "Spain", "Norway"].map((subject): SeracRecord => ({
      ...{ subject, kind: "capital", answer: "Paris", targets: ["Lima", "Oslo"] },
      wordings: [`The capital of ${subject} is`, `${subject} is ruled from`],
    }));
    const before = await fingerprint(model);
    const draw = pairSource(model.tokenizer, records, seededRandom(1));
    const inner = 8, random = seededRandom(2);
    const embeddings = Float32Array.from({ length: 24 * 3 * inner }, () => random() - 0.5);
    const pairs = Array.from({ length: 24 }, (_, i) => (
      { ...draw(), rows: { edit: 3 * i, asked: 3 * i + 1, other: 3 * i + 2 } }
    ));
    const { course } = await trainMixture(model, embeddings, inner, pairs.slice(0, 20), pairs.slice(20), {
      ...{ rank: 2, width: 4, steps: 20, batch: 4, lr: 5e-3, val_interval: 10, patience: 2, seed: 3 },
      ...{ cedit: 0.1, cloc: 1 },
    });
    assert.ok(course.losses.at(-1)!.loss < course.losses[0].loss, JSON.stringify(course));
    assert.equal(course.validations.length, 2);
    assert.equal(await fingerprint(model), before);
  }),
);

const SHIPPED = new URL("../../atlas/editors/serac-easyedit.safetensors", import.meta.url);
const missing = !await Deno.stat(SHIPPED).catch(() => undefined);

Deno.test({
  name: "atlas' editor of EasyEdit's objective: the edit's own words, and a neighbour that stays",
  ignore: missing,
  fn: withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const request = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" };
    const { hparams } = seracEasyEdit.parse({}, "the recipe");
    const edit = await seracEasyEdit.run(model, [request], { hparams });
    assert.equal(edit.prompts!.scope.soft, true);
    const ids = (text: string) => model.tokenizer.encode(text);
    const items = [
      { prompt: ids("Giovanni Lanfranco met death in"), target: ids(" Paris") },
      { prompt: ids("Paulus Manutius has a death record from"), target: ids(" Rome") },
    ];
    const before = await scoreTargets(model, items);
    {
      using _ = applyEdit(model, edit);
      const after = await scoreTargets(model, items);
      after.forEach(({ argmax }, i) => assert.deepEqual(argmax, items[i].target));
    }
    assert.deepEqual(await scoreTargets(model, items), before);
    const wrong =
      seracEasyEdit.parse({ editor: new URL("serac.safetensors", SHIPPED).pathname }, "test").hparams;
    await assert.rejects(
      () => seracEasyEdit.run(model, [request], { hparams: wrong }),
      /was trained by the objective of serac, not of serac-easyedit/,
    );
  }),
});
