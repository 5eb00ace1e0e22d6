/** Readings of cases and the scores from them, against plain forwards of one sequence at a time. */
import assert from "node:assert/strict";
import { applyDeltas } from "../../editors/edit.ts";
import { loadModel } from "../../engine/models/load.ts";
import type { EditCase, Probe, ProbeKind } from "../../evaluation/cases.ts";
import { readDataset } from "../../evaluation/datasets/read.ts";
import { scoreCase } from "../../evaluation/metrics/index.ts";
import { greedyTexts, readCase, readCases, requireFits } from "../../evaluation/readings.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "../editors/_prompts.ts";
import { noise } from "../patches/_models.ts";
import { meanPlainly } from "./_plain.ts";

const { cases } = await readDataset("atlas");
const FORCED = { generate: false, texts: false };

Deno.test(
  "readings score as ROME's definitions on plain forwards, edited or not",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    // The second time under noise, so that wins, losses and margins are mixed.
    for (const [i, delta] of [undefined, noise(model, "layer.4.mlp.down", 4, 5)].entries()) {
      using _applied = delta && applyDeltas(model, [delta]);
      const one = cases[i];
      const compare = async ({ prompt, answers, rival }: Probe) => {
        const a = await meanPlainly(model, prompt, answers[0][0]);
        const b = await meanPlainly(model, prompt, rival!);
        return { win: +(a > b), margin: Math.exp(a) - Math.exp(b) };
      };
      const of = async (kind: ProbeKind) => {
        const list: { win: number; margin: number }[] = [];
        for (const probe of one.probes) if (probe.kind === kind) list.push(await compare(probe));
        const mean = (key: "win" | "margin") => list.reduce((sum, item) => sum + item[key], 0) / list.length;
        return list.length ? { success: mean("win"), margin: mean("margin") } : undefined;
      };
      const readings = await readCase(model, one, FORCED, 0);
      const got = scoreCase(one, readings, readings);
      const kinds: [ProbeKind, string, string][] = [
        ["rewrite", "ES", "EM"],
        ["paraphrase", "PS", "PM"],
        ["neighbour", "NS", "NM"],
      ];
      for (const [kind, success, magnitude] of kinds) {
        const want = (await of(kind))!;
        assert.equal(got[success], want.success, success);
        assert.ok(Math.abs(got[magnitude] - want.margin) < 1e-4, magnitude);
      }
      assert.equal(got["rank.reasoning"], (await of("reasoning"))?.success);
    }
  }),
);

Deno.test(
  "a reading does not depend on the cases that are read with it",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const some = cases.slice(0, 6);
    const plan = { generate: true, texts: true };
    const together = await readCases(model, some, plan, 3);
    for (const [i, one] of some.entries()) {
      assert.deepEqual(await readCase(model, one, plan, 3), together[i]);
    }
    // Another seed writes other texts, and the same answers.
    const other = await readCase(model, some[0], plan, 4);
    assert.deepEqual(other.probes, together[0].probes);
    assert.notDeepEqual(other.texts, together[0].texts);
  }),
);

Deno.test(
  "atlas knows its facts before any edit, and says them",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const sums = { ES: 0, PS: 0, NS: 0, says: 0 };
    for (const one of cases.slice(20, 30)) {
      const readings = await readCase(model, one, { generate: true, texts: false }, 0);
      const { ES, PS, NS } = scoreCase(one, readings, readings);
      sums.ES += ES;
      sums.PS += PS;
      sums.NS += NS;
      sums.says += +readings.probes[0].text!.trim().startsWith(one.requests[0].true!.trim());
    }
    // It answers 95 % of its facts; a record without the fact would count as a success of no edit.
    assert.ok(sums.ES <= 1 && sums.PS <= 2 && sums.NS >= 8 && sums.says >= 8, JSON.stringify(sums));
  }),
);

Deno.test(
  "greedy texts end at their natural stop; each prompt once",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const prompt = cases[0].probes[0].prompt;
    const texts = await greedyTexts(model, [prompt, prompt]);
    assert.equal(texts.size, 1);
    assert.match(texts.get(prompt)!, /^ Rome[^.\n]*$/);
    assert.equal((await greedyTexts(model, [])).size, 0);
  }),
);

Deno.test(
  "a case that the context cannot hold is refused by its prompt",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, ATLAS);
    const long = `${"very ".repeat(model.dims.maxPositions)}long`;
    const one: EditCase = {
      ...cases[0],
      probes: [{ kind: "neighbour", prompt: long, answers: [["x"]], expect: "unchanged" }],
    };
    assert.throws(() => requireFits(model, one), /^InputError: The prompt "very very.*context holds/s);
    requireFits(model, cases[0]);
  }),
);
