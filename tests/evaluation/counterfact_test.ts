import assert from "node:assert/strict";
import { join } from "node:path";
import { atlasData } from "../../atlas/mod.ts";
import { applyDeltas } from "../../editors/edit.ts";
import { loadModel } from "../../engine/models/load.ts";
import {
  type CounterFactRecord,
  counterFactScores,
  harmonicScore,
  readCounterFact,
  requestOf,
} from "../../evaluation/counterfact.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "../editors/_prompts.ts";
import { inFolder } from "../engine/io/_data.ts";
import { noise } from "../patches/_models.ts";
import { meanPlainly } from "./_plain.ts";

const RECORDS: CounterFactRecord[] = JSON.parse(await atlasData("counterfact.json"));

Deno.test(
  "counterFactScores() equals ROME's definitions on plain forwards, edited or not",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    // The second time under noise, so that wins, losses and margins are mixed.
    const overlays = [undefined, { ...noise(model, "layer.4.mlp.down", 4, 5) }];
    for (const [i, delta] of overlays.entries()) {
      using _applied = delta && applyDeltas(model, [delta]);
      const record = RECORDS[i];
      const { requested_rewrite: r } = record;
      const compare = async (prompt: string, a = r.target_new.str, b = r.target_true.str) => ({
        a: await meanPlainly(model, prompt, a),
        b: await meanPlainly(model, prompt, b),
      });
      const rewrite = await compare(r.prompt.replace("{}", () => r.subject));
      const paraphrases = [], neighbours = [], hops = [];
      for (const prompt of record.paraphrase_prompts) paraphrases.push(await compare(prompt));
      for (const prompt of record.neighborhood_prompts) neighbours.push(await compare(prompt));
      for (const h of record.two_hop ?? []) {
        hops.push(await compare(h.prompt, h.answer_after, h.answer_before));
      }
      const mean = (list: { a: number; b: number }[], of: (c: { a: number; b: number }) => number) =>
        list.length ? list.reduce((sum, c) => sum + of(c), 0) / list.length : undefined;
      const wins = (c: { a: number; b: number }) => +(c.a > c.b);
      const margin = (c: { a: number; b: number }) => Math.exp(c.a) - Math.exp(c.b);
      const got = await counterFactScores(model, record);
      assert.deepEqual(
        { ES: got.ES, PS: got.PS, NS: got.NS, twoHop: got.twoHop },
        {
          ES: wins(rewrite),
          PS: mean(paraphrases, wins),
          NS: mean(neighbours, (c) => +(c.b > c.a)),
          twoHop: mean(hops, wins),
        },
      );
      const near = (a: number | undefined, b: number | undefined) => assert.ok(Math.abs(a! - b!) < 1e-4);
      near(got.EM, margin(rewrite));
      near(got.PM, mean(paraphrases, margin));
      near(got.NM, mean(neighbours, (c) => -margin(c)));
    }
  }),
);

Deno.test(
  "counterFactScores() says that atlas knows its facts before any edit",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const sums = { ES: 0, PS: 0, NS: 0 };
    for (const record of RECORDS.slice(20, 30)) {
      const { ES, PS, NS } = await counterFactScores(model, record);
      sums.ES += ES;
      sums.PS += PS!;
      sums.NS += NS!;
    }
    // It answers 95 % of its facts; a record without the fact would count as a success of no edit.
    assert.ok(sums.ES <= 1 && sums.PS <= 2 && sums.NS >= 8, JSON.stringify(sums));
  }),
);

Deno.test(
  "counterFactScores() takes a subject letter by letter when it holds what replace() treats as a pattern",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const [record] = RECORDS;
    const scores = async (subject: string, prompt: string) =>
      await counterFactScores(model, {
        ...record,
        requested_rewrite: { ...record.requested_rewrite, subject, prompt },
        paraphrase_prompts: [],
        neighborhood_prompts: [],
        two_hop: [],
      });
    const { PS, NS, PM, NM, twoHop, ...rewrite } = await scores("A$$P $& Co", "{} met death in");
    assert.deepEqual([PS, NS, PM, NM, twoHop], Array(5).fill(undefined));
    const { EM, ES } = await scores("Co", "A$$P $& {} met death in");
    assert.deepEqual(rewrite, { EM, ES });
  }),
);

Deno.test("readCounterFact() reads atlas' set, and refuses what is no such set", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "set.json");
    await Deno.writeTextFile(path, JSON.stringify(RECORDS.slice(0, 2)));
    const records = await readCounterFact(path);
    assert.equal(records.length, 2);
    const { prompt, subject, target_new, target_true } = RECORDS[0].requested_rewrite;
    assert.deepEqual(requestOf(records[0]), {
      prompt,
      subject,
      target: target_new.str,
      true: target_true.str,
    });
    await Deno.writeTextFile(path, '[{"subject": "x"}]');
    await assert.rejects(readCounterFact(path), /^InputError: .*set\.json is not in the CounterFact layout$/);
    await Deno.writeTextFile(path, "[");
    await assert.rejects(readCounterFact(path), /^InputError: Cannot read .*set\.json: /);
    await assert.rejects(readCounterFact(join(folder, "none")), /^InputError: Cannot read .*none: /);
  });
});

Deno.test("harmonicScore() is the harmonic mean, and 0 when a part is 0", () => {
  assert.ok(Math.abs(harmonicScore(1, 0.5, 0.25) - 3 / 7) < 1e-15);
  assert.equal(harmonicScore(1, 1, 1), 1);
  assert.equal(harmonicScore(1, 0, 1), 0);
});
