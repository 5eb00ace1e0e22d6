/** SERAC: routing and losses against the authors' code, and guide section 18's tests. */
import assert from "node:assert/strict";
import { atlasFolder } from "../../atlas/mod.ts";
import { applyEdit, type Edit } from "../../editors/edit.ts";
import { applyPrompts } from "../../editors/prompts/apply.ts";
import type { PromptEdit, Scope } from "../../editors/prompts/edit.ts";
import { stateEncoder } from "../../editors/prompts/encoders.ts";
import { nearestFacts, place } from "../../editors/prompts/scope.ts";
import { copyOf, type SeracRecord } from "../../editors/serac/data.ts";
import { findSerac, readSerac, writeSerac } from "../../editors/serac/file.ts";
import { SCOPE_LIMIT, serac } from "../../editors/serac/serac.ts";
import { trainSerac } from "../../editors/serac/train.ts";
import { fingerprint } from "../../engine/models/fingerprint.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { Tape } from "../../engine/ops/context.ts";
import { fill } from "../../engine/ops/elementwise.ts";
import { scopeLoss } from "../../engine/ops/scope_loss.ts";
import { createTensor } from "../../engine/tensor/tensor.ts";
import { fromHost } from "../../engine/tensor/transfer.ts";
import { scoreTargets } from "../../evaluation/scoring.ts";
import { patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { evaluate, withGpu } from "../_gpu.ts";

const SCOPE: Pick<Scope, "rule" | "alone" | "measure" | "limit"> = {
  rule: "nearest",
  alone: false,
  measure: "distance",
  limit: SCOPE_LIMIT,
};

/** Facts whose embeddings are given. */
function memory(embeddings: Float32Array[]): PromptEdit {
  return {
    scope: { ...SCOPE, encoder: { kind: "states", layers: [0] } },
    facts: embeddings.map((embedding, i) => ({ text: `fact ${i}`, front: `fact ${i}`, embedding })),
    answers: { kind: "base" },
  };
}

async function fixture() {
  const url = new URL("../fixtures/serac/routing.json", import.meta.url);
  const f = JSON.parse(await Deno.readTextFile(url));
  const rows = (values: number[]) =>
    Array.from(
      { length: f.edits },
      (_, i) => Float32Array.from(values.slice(i * f.width, (i + 1) * f.width)),
    );
  return { ...f, memory: rows(f.memory), outer: rows(f.outer), other: rows(f.other) };
}

Deno.test("routing is the authors': similarities, the nearest memory, and hits above one half", async () => {
  const { memory: facts, outer, other, sims, nearest, hit } = await fixture();
  const texts = Float32Array.from([...outer, ...other].flatMap((row: Float32Array) => [...row]));
  const matches = nearestFacts(memory(facts), texts);
  matches.forEach((match, i) => {
    assert.equal(match!.fact, nearest[i]);
    assert.ok(Math.abs(Math.exp(-match!.value) - sims[i]) <= 1e-4);
    assert.equal(match!.inScope, hit[i]);
  });
  assert.ok(hit.includes(true) && hit.includes(false));
  assert.equal(matches[3]!.value, 0, "a text that is the memory's own has similarity 1");
});

Deno.test(
  "the classifier's loss and its gradients are those of the authors' balanced_bce",
  withGpu(async (gpu) => {
    const { memory: facts, outer, other, edits, width, loss, gradient } = await fixture();
    const flat = (rows: Float32Array[]) => Float32Array.from(rows.flatMap((row) => [...row]));
    const n = 2 * edits;
    const a = fromHost(gpu, "a", [n, width], flat([...outer, ...other]));
    const b = fromHost(gpu, "b", [n, width], flat([...facts, ...facts]));
    const positive = fromHost(
      gpu,
      "positive",
      [n],
      Uint32Array.from({ length: n }, (_, i) => Number(i < edits)),
    );
    const weights = fromHost(gpu, "weights", [n], new Float32Array(n).fill(1 / edits));
    const [losses, da, db] = await evaluate(gpu, (ctx) => {
      const tape = new Tape();
      tape.require(a);
      tape.require(b);
      const y = scopeLoss({ ...ctx, tape }, { a, b, positive, weights });
      const seed = createTensor(gpu, "seed", [n]);
      fill(ctx, seed, 1);
      tape.setGrad(y, seed);
      tape.backward();
      return [y, tape.grad(a)!, tape.grad(b)!];
    });
    assert.ok(Math.abs(losses.reduce((x, y) => x + y, 0) - loss) <= 1e-4);
    const half = edits * width;
    const got = [...db.slice(0, half).map((x, i) => x + db[half + i]), ...da];
    gradient.forEach((want: number, i: number) =>
      assert.ok(Math.abs(got[i] - want) <= 1e-4, `gradient ${i}`)
    );
  }),
);

Deno.test("routing flips at a squared distance of ln 2", () => {
  const edit = memory([Float32Array.of(0, 0)]);
  const at = (d: number) => nearestFacts(edit, Float32Array.of(Math.sqrt(d), 0))[0]!.inScope;
  assert.ok(at(Math.LN2 - 1e-4));
  assert.ok(!at(Math.LN2 + 1e-4));
  assert.deepEqual(nearestFacts(memory([]), Float32Array.of(1, 2)), []);
});

const ITEM = (model: LoadedModel, prompt: string, target: string) => (
  { prompt: model.tokenizer.encode(prompt), target: model.tokenizer.encode(target) }
);

Deno.test(
  "an empty memory is the base to the bit",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const items = [ITEM(model, "The capital of France is", " Paris")];
    const before = await scoreTargets(model, items);
    using _ = applyPrompts(model, memory([]));
    assert.deepEqual(await scoreTargets(model, items), before);
  }),
);

Deno.test(
  "the counterfactual model's ids are the lists side by side, and a long answer is scored in its place",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { tokenizer } = model;
    const edit = "The capital of France is", test = "What is the capital of France?", target = "San Marino";
    const copy = copyOf(tokenizer, edit, target, test);
    assert.ok(copy.target.length > 1, "the answer has several tokens");
    const ids = [...copy.front, ...copy.prompt, ...copy.target];
    assert.deepEqual(ids, tokenizer.encode(`${edit} ${target} ${test} ${target}`));
    const [direct] = await scoreTargets(model, [{
      prompt: [...copy.front, ...copy.prompt],
      target: copy.target,
    }]);
    const encoder = stateEncoder(model, [1]);
    const scope: Scope = { ...SCOPE, rule: "always", encoder: encoder.name };
    using _ = applyPrompts(model, {
      scope,
      facts: [{ text: edit, front: `${edit} ${target}`, embedding: await place(encoder, scope, [edit]) }],
      answers: { kind: "base" },
    });
    const [routed] = await scoreTargets(model, [{ prompt: tokenizer.encode(test), target: copy.target }]);
    routed.logProbs.forEach((p, t) => assert.ok(Math.abs(p - direct.logProbs[t]) <= 1e-4));
  }),
);

Deno.test(
  "embeddings made at insertion are those made anew",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const encoder = stateEncoder(model, [0, 2]);
    const texts = ["The capital of France is", "Rome lies in", "What country contains Bristol?"];
    const together = await encoder.embed(texts);
    for (const [i, text] of texts.entries()) {
      const alone = await encoder.embed([text]);
      const row = together.subarray(i * encoder.width, (i + 1) * encoder.width);
      alone.forEach((x, d) => assert.ok(Math.abs(x - row[d]) <= 1e-5));
    }
  }),
);

Deno.test(
  "training leaves the base's weights alone, lowers both losses, and its file is what it made",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const before = await fingerprint(model);
    const places = ["France", "Italy", "Spain", "Norway", "Japan", "Peru", "Cuba", "China"];
    const records = places.map((subject): SeracRecord => ({
      subject,
      kind: "capital",
      answer: "Paris",
      wordings: [
        `The capital of ${subject} is`,
        `What is the capital of ${subject}?`,
        `${subject} is ruled from`,
      ],
      targets: ["Lima", "Oslo", "San Marino"],
    }));
    const losses: Record<string, number[]> = { scope: [], counterfactual: [] };
    const editor = await trainSerac(model, stateEncoder(model, [0, 1]), records, "a test", {
      scope: { width: 8, steps: 48, batch: 32, lr: 1e-2 },
      adapter: { rank: 2, steps: 20, batch: 4, lr: 5e-3, val_interval: 10, patience: 2 },
      seed: 3,
      onProgress: (part, _done, _total, loss) => loss !== undefined && losses[part].push(loss),
    });
    assert.equal(await fingerprint(model), before);
    for (const list of Object.values(losses)) assert.ok(list.at(-1)! < list[0], `${list}`);
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    await writeSerac(path, editor);
    assert.deepEqual(await readSerac(path), editor);
    await writeSerac(path, { ...editor, base: "0".repeat(64) });
    await assert.rejects(
      () => findSerac(model, "serac", path),
      /was trained for model 00000000…; this model is/,
    );
    await Deno.remove(path);
  }),
);

Deno.test(
  "a sibling on the same device answers in scope, is counted apart, and must have the same vocabulary",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const corpus = new URL("../../atlas/data/counterfact.json", import.meta.url).pathname;
    const settings = { scope: "encoder", encoder: "states", corpus, limit: 0.9 };
    const request = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" };
    const make = async (counterfactual: string) =>
      await serac.run(model, [request], {
        hparams: serac.parse({ ...settings, counterfactual }, "test").hparams,
      });
    const items = [
      ITEM(model, "Giovanni Lanfranco met death in", " Paris"),
      ITEM(model, "What is the capital of Italy?", " Rome"),
    ];
    const held = () => new Map(gpu.memory.owners()).get("counterfactual") ?? 0;
    const before = await scoreTargets(model, items);
    const ask = async (edit: Edit) => {
      using _ = applyEdit(model, edit);
      const scores = await scoreTargets(model, items);
      return { scores, bytes: held() };
    };
    const base = await ask(await make("base"));
    // atlas itself stands for a sibling: the same answers, from weights of its own.
    const edit = await make(await atlasFolder());
    const sibling = await ask(edit);
    assert.notDeepEqual(sibling.scores[0], before[0]);
    assert.deepEqual(sibling.scores, base.scores);
    assert.deepEqual(sibling.scores[1], before[1]);
    assert.ok(base.bytes === 0 && sibling.bytes > 5e6, `${sibling.bytes}`);
    await Promise.resolve();
    assert.equal(held(), 0);
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    await writePatch(path, await patchOf(model, edit));
    assert.deepEqual((await readPatch(path)).prompts!.answers, edit.prompts!.answers);
    await Deno.remove(path);
    // Two tokens have changed places: as many, but not the same.
    const atlas = await atlasFolder(), folder = await Deno.makeTempDir();
    for (const name of ["config.json", "model.safetensors", "tokenizer_config.json"]) {
      await Deno.symlink(`${atlas}/${name}`, `${folder}/${name}`);
    }
    const tokenizer = JSON.parse(await Deno.readTextFile(`${atlas}/tokenizer.json`));
    const [[first], [second]] = Object.entries(tokenizer.model.vocab).slice(-2);
    const { vocab } = tokenizer.model;
    [vocab[first], vocab[second]] = [vocab[second], vocab[first]];
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(tokenizer));
    const stranger = await make(folder);
    await assert.rejects(
      () => ask(stranger),
      /has another vocabulary than .*: it cannot answer in its place/,
    );
    await Deno.remove(folder, { recursive: true });
    await Promise.resolve();
    assert.equal(held(), 0);
  }),
);

const SHIPPED = new URL("../../atlas/editors/serac.safetensors", import.meta.url);
const missing = !await Deno.stat(SHIPPED).catch(() => undefined);

Deno.test({
  name: "atlas' editor: a fact never seen in training, its rewording and a neighbour; saved and read again",
  ignore: missing,
  fn: withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const request = {
      prompt: "{} met death in",
      subject: "Giovanni Lanfranco",
      target: "Paris",
      true: "Rome",
    };
    const { hparams } = serac.parse(serac.recipe(model).hparams, "the recipe");
    const edit = await serac.run(model, [request], { hparams });
    const asked = [
      ITEM(model, "Giovanni Lanfranco met death in", " Paris"),
      ITEM(model, "The death of Giovanni Lanfranco took place in", " Paris"),
      ITEM(model, "Paulus Manutius has a death record from", " Rome"),
    ];
    const says = async () =>
      (await scoreTargets(model, asked)).map(({ argmax }, i) =>
        argmax.every((id, t) => id === asked[i].target[t])
      );
    const before = await scoreTargets(model, asked);
    const held = () => new Map(gpu.memory.owners()).get("adapters") ?? 0;
    {
      using _ = applyEdit(model, edit);
      assert.deepEqual(await says(), [true, true, true]);
      assert.ok(held() > 0, "the adapter's memory is counted under its name");
    }
    await Promise.resolve();
    assert.equal(held(), 0);
    assert.deepEqual(await scoreTargets(model, asked), before);
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    await writePatch(path, await patchOf(model, edit));
    const patch = await readPatch(path);
    assert.deepEqual(patch, await patchOf(model, edit));
    await Deno.remove(path);
    const other = {
      ...edit.prompts!,
      answers: { kind: "adapter" as const, editor: "serac", hash: "0".repeat(64) },
    };
    using _ = applyPrompts(model, other);
    await assert.rejects(says, /made with another serac editor/);
  }),
});
