/** IKE: demonstrations, retrieval, and scores with a prompt in front; edits by prompts as values and files. */
import assert from "node:assert/strict";
import { atlasFolder } from "../../atlas/mod.ts";
import { applyEdit } from "../../editors/edit.ts";
import { ice, ike, ikeSchema, nearestRecords } from "../../editors/ike.ts";
import { type CorpusRecord, readCorpus } from "../../editors/ike_corpus.ts";
import { demonstrations, frontOf } from "../../editors/ike_demonstrations.ts";
import { applyPrompts, memoriesOn } from "../../editors/prompts/apply.ts";
import { stateEncoder } from "../../editors/prompts/encoders.ts";
import { following } from "../../editors/prompts/text.ts";
import { loadModel } from "../../engine/models/load.ts";
import { isRouted, routesOf } from "../../engine/models/route.ts";
import { meanLogProb, scoreTargets } from "../../evaluation/scoring.ts";
import { applyPatch, patchOf, readPatch, writePatch } from "../../patches/patch.ts";
import { writePeft } from "../../patches/peft.ts";
import { partsOf, stackPatches, withoutParts } from "../../patches/stack.ts";
import { withGpu } from "../_gpu.ts";

const record = (i: number): CorpusRecord => ({
  subject: `subject ${i}`,
  prompt: `subject ${i} lies in`,
  new: `place ${i}`,
  paraphrases: [`where is subject ${i}? in`, `subject ${i} is in`],
  neighbours: [{ prompt: `neighbour ${i} lies in`, answer: `home ${i}` }],
});

Deno.test("a prompt of IKE has 4 copy, 12 update and 16 retain demonstrations and the fact: 33, the nearest last", () => {
  const nearest = Array.from({ length: 40 }, (_, i) => record(i));
  const fact = { prompt: "the edit lies in", new: "Paris" };
  const made = demonstrations(fact, nearest, { copy: 4, update: 12, retain: 16 }, 42);
  assert.equal(made.length, 33);
  const last = made.pop()!;
  assert.equal(last.text, "New Fact: the edit lies in Paris\nPrompt: the edit lies in Paris\n\n");
  const count = (kind: string) => made.filter((one) => one.kind === kind).length;
  assert.deepEqual([count("copy"), count("update"), count("retain")], [4, 12, 16]);
  // From the farthest of the 32 to the nearest.
  made.forEach(({ text }, i) =>
    assert.ok(text.startsWith(`New Fact: subject ${31 - i} lies in place ${31 - i}\n`))
  );
  for (const { kind, text } of made) {
    const [, i] = text.match(/subject (\d+)/)!;
    const asked = text.split("Prompt: ")[1];
    if (kind === "copy") assert.equal(asked, `subject ${i} lies in place ${i}\n\n`);
    if (kind === "update") {
      assert.match(asked, new RegExp(`(where is subject ${i}\\? in|subject ${i} is in) place ${i}`));
    }
    if (kind === "retain") assert.equal(asked, `neighbour ${i} lies in home ${i}\n\n`);
  }
  assert.deepEqual(demonstrations(fact, nearest, { copy: 4, update: 12, retain: 16 }, 42).slice(0, 32), made);
  assert.ok(frontOf(fact, made).endsWith("New Fact: the edit lies in Paris\nPrompt:"));
});

Deno.test("demonstrations are found among other subjects, the nearest first", () => {
  const records = [0, 1, 2, 3].map(record);
  const embeddings = Float32Array.of(1, 0, 0.6, 0.8, 0, 1, -1, 0);
  const found = nearestRecords({ records, embeddings }, Float32Array.of(1, 0), "SUBJECT 0 ", 2);
  assert.deepEqual(found.map(({ subject }) => subject), ["subject 1", "subject 2"]);
});

Deno.test("a corpus is read in its layouts, without what is tested and without repetitions", async () => {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  const rewrite = (subject: string) => ({
    requested_rewrite: { prompt: "{} lies in", subject, target_new: { str: "A" }, target_true: { str: "B" } },
    paraphrase_prompts: [`where is ${subject}? in`],
    neighborhood_prompts: ["another lies in"],
  });
  const list = [
    rewrite("tested"),
    rewrite("one"),
    rewrite("one"),
    {
      subject: "two",
      src: "Where is two?",
      rephrase: "two is where?",
      alt: "C",
      loc: "nq question: who",
      loc_ans: "D",
    },
    {
      subject: "three",
      prompt: "Where is three?",
      target_new: ["E"],
      rephrase_prompt: "three is where?",
      locality: { Relation_Specificity: [{ prompt: "three is a", ground_truth: [["F", "f"]] }] },
    },
    { nothing: 1 },
  ];
  await Deno.writeTextFile(path, JSON.stringify(list));
  const records = await readCorpus(path, 1);
  assert.deepEqual(records.map(({ subject }) => subject), ["one", "two", "three"]);
  assert.deepEqual(records[0].neighbours, [{ prompt: "another lies in", answer: "B" }]);
  assert.deepEqual(records[1].neighbours, [{ prompt: "who", answer: "D" }]);
  assert.deepEqual(records[2], {
    subject: "three",
    prompt: "Where is three?",
    new: "E",
    paraphrases: ["three is where?"],
    neighbours: [{ prompt: "three is a", answer: "F" }],
  });
  await assert.rejects(() => readCorpus(path, 5), /no record with a rewording/);
  await Deno.remove(path);
});

Deno.test(
  "scores with a prompt in front are those of the authors' formula on atlas",
  withGpu(async (gpu) => {
    const url = new URL("../fixtures/ike/scores.json", import.meta.url);
    const { front, prompts, candidates, scores } = JSON.parse(await Deno.readTextFile(url));
    using model = await loadModel(gpu, await atlasFolder());
    const { tokenizer } = model;
    const whole = tokenizer.encode(`${front} ${prompts[0]}`);
    assert.deepEqual(
      [...tokenizer.encode(front), ...following(tokenizer, tokenizer.encode(prompts[0]))],
      whole,
    );
    const name = stateEncoder(model, [2]).name;
    using _ = applyPrompts(model, {
      scope: { rule: "always", alone: true, encoder: name, measure: "cosine", limit: 0 },
      facts: [{ text: prompts[0], front, embedding: new Float32Array(256) }],
      answers: { kind: "base" },
    });
    const items = prompts.flatMap((prompt: string) =>
      candidates.map((candidate: string) => ({
        prompt: tokenizer.encode(prompt),
        target: tokenizer.encode(` ${candidate}`, { special: false }),
      }))
    );
    const got = (await scoreTargets(model, items)).map(({ logProbs }) => Math.exp(meanLogProb(logProbs)));
    scores.flat().forEach((want: number, i: number) =>
      assert.ok(Math.abs(got[i] - want) <= 1e-4 * want + 1e-9)
    );
  }),
);

const LANFRANCO = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris", true: "Rome" };
const FRANCE = { prompt: "The capital of {} is", subject: "France", target: "Rome", true: "Paris" };

Deno.test(
  "one fact stands before every prompt; of several the nearest does, and only before prompts about it",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const corpus = new URL("../../atlas/data/counterfact.json", import.meta.url).pathname;
    const { hparams } = ice.parse({ encoder: "states", corpus, limit: 0.9 }, "test");
    const one = await ice.run(model, [LANFRANCO], { hparams });
    const both = await ice.run(model, [LANFRANCO, FRANCE], { hparams });
    assert.equal(one.hparams.corpus, "counterfact.json", "a patch holds no path");
    const ask = async (text: string) => {
      const item = { prompt: model.tokenizer.encode(text), target: model.tokenizer.encode(" Rome") };
      return (await scoreTargets(model, [item]))[0].logProbs[0];
    };
    const own = "Giovanni Lanfranco met death in", other = "Of which nation is F. S. Platou a national?";
    const before = [await ask(own), await ask(other)];
    {
      using _ = applyEdit(model, one);
      assert.notEqual(await ask(own), before[0]);
      assert.notEqual(await ask(other), before[1]);
    }
    assert.ok(!isRouted(model));
    {
      using _ = applyEdit(model, both);
      assert.notEqual(await ask(own), before[0]);
      assert.equal(await ask(other), before[1]);
    }
    // Two edits that go together are one memory, in which the later of two facts with one text stays.
    const again = await ice.run(model, [{ ...LANFRANCO, target: "Berlin" }], { hparams });
    using _first = applyEdit(model, both);
    using _second = applyEdit(model, again);
    const [memory, ...rest] = memoriesOn(model);
    assert.equal(rest.length, 0);
    assert.deepEqual(memory.facts.map(({ front }) => front.match(/Fact: (.*)\n/)![1]), [
      "The capital of France is Rome",
      "Giovanni Lanfranco met death in Berlin",
    ]);
  }),
);

Deno.test(
  "prompts in front are patches: saved, read, stacked, taken out, refused where weights are written",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const corpus = new URL("../../atlas/data/counterfact.json", import.meta.url).pathname;
    const { hparams } = ike.parse({ encoder: "states", corpus, room: 40 }, "test");
    const edits = [
      await ike.run(model, [LANFRANCO], { hparams }),
      await ike.run(model, [FRANCE], { hparams }),
    ];
    assert.match(edits[0].outcomes[0].warnings[0], /room for \d+ demonstrations, not 32/);
    const folder = await Deno.makeTempDir();
    const patches = [];
    for (const [i, edit] of edits.entries()) {
      await writePatch(`${folder}/${i}.safetensors`, await patchOf(model, edit));
      patches.push(await readPatch(`${folder}/${i}.safetensors`));
      assert.deepEqual(patches[i], await patchOf(model, edit));
    }
    const stack = stackPatches(patches);
    await writePatch(`${folder}/stack.safetensors`, stack);
    const read = await readPatch(`${folder}/stack.safetensors`);
    assert.deepEqual(partsOf(read), patches);
    assert.deepEqual(withoutParts(read, [2]), patches[0]);
    await writePatch(`${folder}/again.safetensors`, withoutParts(read, [2]));
    assert.deepEqual(
      await Deno.readFile(`${folder}/again.safetensors`),
      await Deno.readFile(`${folder}/0.safetensors`),
    );
    await assert.rejects(
      () => writePeft(`${folder}/peft`, read),
      /changes no weight: it cannot become a PEFT adapter/,
    );
    const item = { prompt: model.tokenizer.encode("Giovanni Lanfranco met death in"), target: [5] };
    const plain = await scoreTargets(model, [item]);
    {
      using _ = applyEdit(model, edits[0]);
      const live = await scoreTargets(model, [item]);
      using _off = applyPatch(model, patches[0]);
      assert.deepEqual(await scoreTargets(model, [item]), live);
    }
    assert.deepEqual(await scoreTargets(model, [item]), plain);
    await Deno.remove(folder, { recursive: true });
  }),
);

Deno.test(
  "IKE says what it needs",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const { hparams } = ike.parse({ encoder: "states" }, "test");
    await assert.rejects(() => ike.run(model, [LANFRANCO], { hparams }), /IKE needs a corpus/);
    const missing = ike.parse({ encoder: "/nowhere" }, "test").hparams;
    await assert.rejects(() => ike.run(model, [LANFRANCO], { hparams: missing }), /no sentence encoder at/);
    assert.throws(() => ike.requireKeys(["coppy"]), /no hyper-parameter "coppy"/);
    assert.equal(ikeSchema.parse({}).update, 12);
    // One fact needs no comparing; a second one laid beside it does.
    const alone = ice.parse({ encoder: "states" }, "test").hparams;
    using _one = applyEdit(model, await ice.run(model, [LANFRANCO], { hparams: alone }));
    const asked = [model.tokenizer.encode("The capital of France is")];
    assert.ok((await routesOf(model, asked))[0].claimed);
    using _two = applyEdit(model, await ice.run(model, [FRANCE], { hparams: alone }));
    await assert.rejects(() => routesOf(model, asked), /States need a corpus to be centred on/);
  }),
);

Deno.test(
  "an encoder from any folder finds facts; a memory of another encoder is refused",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, await atlasFolder());
    const tiny = new URL("../fixtures/models/bert-tiny", import.meta.url).pathname;
    const { hparams } = ice.parse({ encoder: tiny, limit: 0.999 }, "test");
    const { prompts } = await ice.run(model, [LANFRANCO, FRANCE], { hparams });
    const ids = model.tokenizer.encode("The capital of France is");
    {
      using _ = applyPrompts(model, prompts!);
      const [route] = await routesOf(model, [ids]);
      assert.deepEqual(route.front, model.tokenizer.encode(prompts!.facts[1].front));
    }
    const { encoder } = prompts!.scope;
    assert.ok(encoder.kind === "sentence" && encoder.name === "bert-tiny");
    const cache = Deno.env.get("XDG_CACHE_HOME"), folder = await Deno.makeTempDir();
    await Deno.mkdir(`${folder}/emend/models`, { recursive: true });
    await Deno.symlink(tiny, `${folder}/emend/models/bert-tiny`);
    Deno.env.set("XDG_CACHE_HOME", folder);
    try {
      const other = { ...prompts!.scope, encoder: { ...encoder, hash: "0".repeat(64) } };
      using _ = applyPrompts(model, { ...prompts!, scope: other });
      await assert.rejects(
        () => routesOf(model, [ids]),
        /made with encoder 00000000… \(bert-tiny\); the one here is/,
      );
    } finally {
      if (cache === undefined) Deno.env.delete("XDG_CACHE_HOME");
      else Deno.env.set("XDG_CACHE_HOME", cache);
      await Deno.remove(folder, { recursive: true });
    }
  }),
);
