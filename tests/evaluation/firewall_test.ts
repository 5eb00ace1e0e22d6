import assert from "node:assert/strict";
import { applyDeltas, type Edit } from "../../editors/edit.ts";
import { fill } from "../../editors/requests.ts";
import type { Gpu } from "../../engine/gpu/device.ts";
import { type LoadedModel, loadModel } from "../../engine/models/load.ts";
import { drift, driftBaseline } from "../../evaluation/drift.ts";
import { type Budgets, guard, guardBaseline, type Guarded, scaled } from "../../evaluation/firewall.ts";
import { keepProbe, type PackProbe } from "../../evaluation/pack.ts";
import { editSucceeded, requestStates } from "../../evaluation/state.ts";
import { edit } from "../../mod.ts";
import { withGpu } from "../_gpu.ts";
import { ATLAS } from "../editors/_prompts.ts";
import { noise } from "../patches/_models.ts";

const REQUEST = {
  prompt: "{} met death in",
  subject: "Giovanni Lanfranco",
  target: "Paris",
  true: "Rome",
};

let loaded: Promise<{ model: LoadedModel; made: Edit; full: { kl: number; growth: number } }> | undefined;

/** atlas, one edit of it and what that costs; made once. */
function prepared(gpu: Gpu) {
  return loaded ??= (async () => {
    const model = await loadModel(gpu, ATLAS);
    const made = await edit(model, REQUEST);
    using baseline = await driftBaseline(model, { text: false, repetition: false });
    using _applied = applyDeltas(model, made.deltas);
    const values = await drift(model, baseline);
    return { model, made, full: { kl: values["drift.kl"], growth: values["drift.norm_growth"] } };
  })();
}

async function guarded(model: LoadedModel, made: Edit, budgets: Budgets): Promise<Guarded> {
  using baseline = await guardBaseline(model, budgets);
  const result = await guard(model, made, budgets, baseline);
  for (const { overlays, role } of model.weights.values()) assert.equal(overlays.length, 0, role);
  return result;
}

function keep(prompt: string, answer: string): PackProbe {
  return { line: 3, expect: "keep", prompt, answers: [answer], mode: "prefix" };
}

Deno.test(
  "guard() leaves an edit within its budgets as it is",
  withGpu(async (gpu) => {
    const { model, made, full } = await prepared(gpu);
    const budgets = {
      maxDrift: full.kl * 1.01,
      maxNormGrowth: full.growth * 1.01,
      keep: [keepProbe("The capital of Italy is"), keep("The capital of France is", "Paris")],
    };
    const result = await guarded(model, made, budgets);
    assert.equal(result.edit, made);
    assert.deepEqual([result.scale, result.broken, result.refused], [1, [], undefined]);
    assert.deepEqual(result.checks.map(({ name, ok, bound }) => [name, ok, bound]), [
      ["max-drift", true, false],
      ["max-norm-growth", true, false],
      ["keep", true, false],
      ["keep", true, false],
    ]);
    assert.deepEqual([result.checks[0].value, result.checks[1].value], [full.kl, full.growth]);
    assert.deepEqual([result.checks[3].limit, result.checks[3].value], ['"Paris"', '"Paris"']);
    const nothing = await guarded(model, made, {});
    assert.deepEqual([nothing.edit, nothing.checks], [made, []]);
  }),
);

Deno.test(
  "guard() takes an edit back to the largest of its scales within the budgets, the same each time",
  withGpu(async (gpu) => {
    const { model, made, full } = await prepared(gpu);
    for (
      const [name, budgets] of [
        ["max-drift", { maxDrift: full.kl * 0.85, maxNormGrowth: full.growth * 2 }],
        ["max-norm-growth", { maxDrift: full.kl * 2, maxNormGrowth: full.growth * 0.95 }],
      ] as const
    ) {
      const result = await guarded(model, made, budgets);
      const { scale, checks, broken, refused } = result;
      assert.equal(refused, undefined);
      assert.ok(scale > 0.5 && scale < 1 && Number.isInteger(scale * 32), `${name}: ${scale}`);
      assert.deepEqual(result, await guarded(model, made, budgets));
      assert.equal(broken.length, 1);
      assert.match(broken[0], /^The edit in full .*the budget is [\d.]+$/);
      const bound = checks.find((check) => check.name === name)!;
      assert.deepEqual([bound.ok, bound.bound], [true, true]);
      assert.ok(bound.value <= bound.limit && bound.full > bound.limit, JSON.stringify(bound));
      assert.ok(checks.filter((check) => check.name !== name).every((check) => !check.bound && check.ok));
      // What came back is that share of ΔW, it still takes, and the next larger scale breaks the budget.
      assert.deepEqual(result.edit, scaled(made, scale));
      assert.equal(result.edit.hparams.firewall_scale, scale);
      assert.ok(
        result.edit.deltas[0].left.every((x, i) => x === Math.fround(made.deltas[0].left[i] * scale)),
      );
      using baseline = await driftBaseline(model, { text: false, repetition: false });
      const at = async (share: number) => {
        using _applied = applyDeltas(model, scaled(made, share).deltas);
        const values = await drift(model, baseline);
        const [state] = await requestStates(model, made.requests);
        return { value: values[name === "max-drift" ? "drift.kl" : "drift.norm_growth"], state };
      };
      const here = await at(scale);
      assert.equal(here.value, bound.value);
      assert.ok(editSucceeded(made.requests[0], here.state));
      assert.ok((await at(scale + 1 / 32)).value > Number(bound.limit));
    }
  }),
);

Deno.test(
  "guard() refuses an edit that no longer takes within its budgets, with a sentence for each broken one",
  withGpu(async (gpu) => {
    const { model, made, full } = await prepared(gpu);
    const tight = await guarded(model, made, { maxDrift: full.kl / 50, maxNormGrowth: full.growth / 10 });
    assert.equal(tight.scale, 0);
    assert.equal(tight.edit, made);
    assert.equal(tight.broken.length, 2);
    assert.match(
      tight.refused!,
      /^Within the budgets, at 0\.\d+ of its strength, the edit of "Giovanni Lanfranco met/,
    );
    assert.ok(tight.checks.every(({ ok, bound, value, full }) => !ok && bound && value === full));

    const none = await guarded(model, made, { maxDrift: 0 });
    assert.equal(none.refused, "Even 1/32 of the edit breaks a budget");

    // The edit's own prompt cannot stay.
    const { text } = fill(made.requests[0].prompt, REQUEST.subject);
    const own = await guarded(model, made, { keep: [keep(text, "Rome")] });
    assert.match(own.refused!, /does not take$/);
    assert.deepEqual(own.broken, [`The edit in full changes "${text}": "Paris" instead of "Rome"`]);
    assert.equal(own.checks[0].ok, false);

    const idle: Edit = { ...made, deltas: [noise(model, "layer.2.mlp.down", 1, 4)] };
    const wrong = await guarded(model, idle, { maxNormGrowth: 1e-3 });
    assert.equal(wrong.refused, "The edit does not take even in full");

    const broken: Edit = { ...made, deltas: made.deltas.map((d) => ({ ...d, left: d.left.map(() => NaN) })) };
    const nan = await guarded(model, broken, { maxDrift: 1 });
    assert.equal(nan.scale, 0);
    assert.notEqual(nan.refused, undefined);
  }),
);

Deno.test(
  "guard() asks of several requests only those that succeed in full to succeed still",
  withGpu(async (gpu) => {
    const { model, made, full } = await prepared(gpu);
    const hopeless = {
      prompt: "{} is the capital of",
      subject: "Paris",
      target: " Mathematics",
      true: " France",
    };
    const both: Edit = { ...made, requests: [...made.requests, hopeless] };
    const result = await guarded(model, both, { maxDrift: full.kl * 0.85 });
    assert.equal(result.refused, undefined);
    assert.ok(result.scale < 1);
  }),
);

Deno.test(
  "guard() counts what lies on the model already",
  withGpu(async (gpu) => {
    const { model, made, full } = await prepared(gpu);
    const budgets = { maxDrift: full.kl * 1.5, maxNormGrowth: full.growth * 1.5 };
    using baseline = await guardBaseline(model, budgets);
    using _earlier = applyDeltas(model, made.deltas);
    const result = await guard(model, made, budgets, baseline);
    assert.ok(result.broken.length > 0, "twice the edit");
    assert.ok(Number(result.checks[1].full) > full.growth * 1.5);
  }),
);

Deno.test(
  "guardBaseline() refuses probes to keep that do not hold to begin with",
  withGpu(async (gpu) => {
    const { model } = await prepared(gpu);
    await assert.rejects(
      guardBaseline(model, { keep: [keep("The capital of France is", "Rome")] }),
      /^InputError: The probe to keep "The capital of France is" \(line 3\) does not hold before the edit: expected "Rome", the model says "Paris"$/,
    );
  }),
);
