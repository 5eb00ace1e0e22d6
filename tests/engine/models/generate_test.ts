/** Text generation on tiny models: batches, windows, sampling, stops, the end of the context. */
import { deepStrictEqual, notDeepStrictEqual, ok, rejects } from "node:assert/strict";
import { generate } from "../../../engine/models/generate.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { likeliest, sample, seededRandom } from "../../../engine/models/sample.ts";
import { withGpu } from "../../_gpu.ts";
import { logitsOf } from "../../patches/_models.ts";
import { normals } from "../ops/_reference.ts";
import { readReference } from "./_fixtures.ts";

const open = async (gpu: Parameters<typeof loadModel>[0], name: string) => {
  const reference = await readReference(name);
  return { reference, model: await loadModel(gpu, reference.folder, { tokenizer: false }) };
};

for (const name of ["gpt2-tiny", "mistral-tiny"]) {
  Deno.test(
    `generate() gives each prompt of a batch what it gives it alone on ${name}`,
    withGpu(async (gpu) => {
      const { reference, model: opened } = await open(gpu, name);
      using model = opened;
      // The reference's continuations lead by 0.03 in any logit: a batch's other rounding cannot change them.
      const prompts = reference.greedy.map((g) => g.prompt);
      const options = { maxTokens: reference.greedy[0].new.length, stop: [] };
      const together = await generate(model, prompts, options);
      deepStrictEqual(together, reference.greedy.map((g) => g.new));
      for (const [i, prompt] of prompts.entries()) {
        deepStrictEqual(await generate(model, [prompt], options), [together[i]]);
      }
      deepStrictEqual(await generate(model, prompts.toReversed(), options), together.toReversed());
    }),
  );
}

Deno.test(
  "generate() gives the same text when one seed samples twice, another when the seed differs",
  withGpu(async (gpu) => {
    using model = (await open(gpu, "gpt2-tiny")).model;
    const draw = (seed: number) =>
      generate(model, [[5, 6, 7], [8, 9]], { maxTokens: 20, stop: [], temperature: 1.5, topK: 40, seed });
    const first = await draw(3);
    deepStrictEqual(await draw(3), first);
    notDeepStrictEqual(await draw(4), first);
    ok(first.flat().every((id) => id < 97));
  }),
);

Deno.test(
  "generate() is greedy when it samples from one token",
  withGpu(async (gpu) => {
    const { reference, model: opened } = await open(gpu, "llama-tiny");
    using model = opened;
    const prompts = reference.greedy.map((g) => g.prompt);
    const options = { maxTokens: reference.greedy[0].new.length, stop: [] };
    const greedy = await generate(model, prompts, options);
    deepStrictEqual(await generate(model, prompts, { ...options, temperature: 2, topK: 1, seed: 9 }), greedy);
    deepStrictEqual(await generate(model, prompts, { ...options, temperature: 0, topK: 7 }), greedy);
    deepStrictEqual(await generate(model, prompts, { ...options, temperature: 1, topP: 1e-6 }), greedy);
  }),
);

Deno.test(
  "generate() ends a text before its stop token while the others go on",
  withGpu(async (gpu) => {
    const { reference, model: opened } = await open(gpu, "gpt2-tiny");
    using model = opened;
    const [first, second] = reference.greedy;
    const stop = first.new.find((id) => !second.new.includes(id))!;
    const prompts = [first.prompt, second.prompt];
    const texts = await generate(model, prompts, { maxTokens: first.new.length, stop: [stop] });
    deepStrictEqual(texts, [first.new.slice(0, first.new.indexOf(stop)), second.new]);
    // By default it is the model's end-of-text token.
    const ending: typeof model = Object.create(model, { config: { value: { ...model.config, eos: stop } } });
    deepStrictEqual(await generate(ending, prompts, { maxTokens: first.new.length }), texts);
  }),
);

Deno.test(
  "generate() waits no longer than it must when every text has ended",
  withGpu(async (gpu) => {
    const { reference, model: opened } = await open(gpu, "gpt2-tiny");
    using model = opened;
    const { prompt, new: text } = reference.greedy[0];
    const steps: number[] = [];
    const waits = gpu.waits;
    const options = { maxTokens: 40, stop: [text[0]], onTokens: (n: number) => steps.push(n) };
    deepStrictEqual(await generate(model, [prompt], options), [[]]);
    deepStrictEqual(steps, [16]);
    deepStrictEqual(gpu.waits - waits, 1);
    // Sampling from few tokens waits no more often; from all of them it waits at each step.
    const sampled = { ...options, maxTokens: 20, stop: [], temperature: 1 };
    for (
      const [topK, expected] of [[5, [16, 20]], [
        undefined,
        Array.from({ length: 20 }, (_, i) => i + 1),
      ]]
    ) {
      steps.length = 0;
      const before = gpu.waits;
      await generate(model, [prompt], { ...sampled, topK: topK as number | undefined });
      deepStrictEqual(steps, expected);
      deepStrictEqual(gpu.waits - before, steps.length);
    }
  }),
);

Deno.test(
  "generate() ends when its caller says that every text has, and asks about each text at each wait",
  withGpu(async (gpu) => {
    const { reference, model: opened } = await open(gpu, "gpt2-tiny");
    using model = opened;
    const prompts = reference.greedy.map((g) => g.prompt);
    const options = { maxTokens: 40, stop: [] };
    const whole = await generate(model, prompts, options);
    const asked: number[][] = [];
    const ends = prompts.map((_, i) => 3 + 4 * (i % 2));
    const until = (ids: number[]) => {
      asked.push(ids);
      return ids.length >= ends[whole.findIndex((text) => ids.every((id, t) => id === text[t]))];
    };
    const texts = await generate(model, prompts, { ...options, until });
    // The longest ends at 7; the second look is at 12.
    deepStrictEqual(texts, whole.map((ids) => ids.slice(0, 12)));
    deepStrictEqual(asked.slice(0, prompts.length), whole.map((ids) => ids.slice(0, 4)));
    // What has ended is not asked about again.
    deepStrictEqual(asked.slice(prompts.length), texts.filter((_, i) => ends[i] > 4));
    deepStrictEqual(await generate(model, prompts, { ...options, until: () => false }), whole);
  }),
);

for (const name of ["gpt2-tiny", "mistral-tiny", "smollm2-tiny"]) {
  Deno.test(
    `generate() samples what drawing on the host from full forwards does (${name})`,
    withGpu(async (gpu) => {
      using model = (await open(gpu, name)).model;
      const { vocab } = model.dims;
      const prompts = [[5, 6, 7, 8, 9, 10], [3], [11, 12]];
      const settings = [{ topK: 5, seed: 0 }, { topK: 64, seed: 3 }, { topK: 20, topP: 0.6, seed: 8 }];
      for (const given of [...settings, { topK: 65, seed: 3 }, { topP: 0.9, seed: 1 }]) {
        const sampling = { ...given, temperature: 1.4 };
        const random = seededRandom(given.seed);
        const texts = prompts.map((ids) => [...ids]);
        for (let step = 0; step < 30; step++) {
          const all = await logitsOf(model, texts);
          let end = 0;
          texts.forEach((ids) => {
            end += ids.length;
            ids.push(sample(all.subarray((end - 1) * vocab, end * vocab), sampling, random));
          });
        }
        const expected = texts.map((ids, i) => ids.slice(prompts[i].length));
        const got = await generate(model, prompts, { maxTokens: 30, stop: [], ...sampling });
        deepStrictEqual(got, expected, JSON.stringify(given));
      }
    }),
  );
}

Deno.test("likeliest() puts higher logits first and lower ids before equal ones", () => {
  const logits = Float32Array.from(normals(200, 3), (v) => Math.round(v));
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  for (const k of [1, 2, 24, 25, 26, 199, 200, 300]) deepStrictEqual(likeliest(logits, k), order.slice(0, k));
});

Deno.test(
  "generate() fills the context of each prompt when lengths differ, and refuses a full one",
  withGpu(async (gpu) => {
    using model = (await open(gpu, "llama-tiny")).model;
    const long = Array.from({ length: 62 }, (_, i) => 1 + i % 90);
    const options = { maxTokens: 20, stop: [] };
    const texts = await generate(model, [long, [5, 6, 7]], options);
    deepStrictEqual(texts.map((t) => t.length), [2, 20]);
    deepStrictEqual(await generate(model, [[5, 6, 7]], options), [texts[1]]);
    deepStrictEqual(await generate(model, [long], options), [texts[0]]);
    const full = [...long, 1, 2];
    await rejects(generate(model, [full], options), /The prompt has 64 tokens; the model's context holds 64/);
    await rejects(generate(model, [[1], []], options), /Cannot continue an empty prompt/);
    deepStrictEqual(await generate(model, [[1]], { maxTokens: 0 }), [[]]);
    deepStrictEqual(await generate(model, [], options), []);
  }),
);

Deno.test(
  "generate() returns all it took when it is done",
  withGpu(async (gpu) => {
    using model = (await open(gpu, "mistral-tiny")).model;
    gpu.memory.trim();
    const before = gpu.memory.now;
    await generate(model, [[5, 6, 7]], { maxTokens: 9, temperature: 1 });
    gpu.memory.trim();
    deepStrictEqual(gpu.memory.now, before);
  }),
);

Deno.test("sample() draws with the probabilities of the tempered, cut distribution", () => {
  const logits = Float32Array.from(normals(12, 1, 2));
  const temperature = 0.7, draws = 20000;
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
  const weightOf = (id: number) => Math.exp(logits[id] / temperature);
  const total = order.reduce((sum, id) => sum + weightOf(id), 0);
  let mass = 0;
  // topP keeps a token while those before it have not reached the share.
  const inShare = order.filter((id) => {
    const before = mass;
    mass += weightOf(id) / total;
    return before < 0.8;
  });
  for (
    const [options, kept] of [[{}, order], [{ topK: 3 }, order.slice(0, 3)], [
      { topP: 0.8 },
      inShare,
    ]] as const
  ) {
    const random = seededRandom(7);
    const counts = new Map<number, number>();
    for (let i = 0; i < draws; i++) {
      const id = sample(logits, { temperature, ...options }, random);
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
    const norm = kept.reduce((sum, id) => sum + weightOf(id), 0);
    for (const id of order) {
      const p = kept.includes(id) ? weightOf(id) / norm : 0;
      // Five standard deviations of a share of 20,000 draws.
      const allowed = 5 * Math.sqrt(p * (1 - p) / draws);
      ok(Math.abs((counts.get(id) ?? 0) / draws - p) <= allowed, `${JSON.stringify(options)}, token ${id}`);
    }
  }
});
