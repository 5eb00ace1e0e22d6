/**
 * KE's constrained training against the authors' own code (nicola-decao/KnowledgeEditor): the change of every matrix,
 * and six steps with their losses, multipliers and numbers. The fixture is made by tools/fixtures/ke_constrained.py.
 * And what section 18 of the memory-and-meta guide asks of it.
 */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { ConstrainedLearner, type ConstrainedOptions } from "../../../editors/hypernetworks/ke_learner.ts";
import { keNetwork } from "../../../editors/hypernetworks/ke_network.ts";
import { networkTensors, readNumbers } from "../../../editors/hypernetworks/learner.ts";
import { makeChanges } from "../../../editors/hypernetworks/make.ts";
import { blockMaps } from "../../../editors/hypernetworks/maps.ts";
import type { EditGroup } from "../../../editors/hypernetworks/step.ts";
import { denseOf } from "../../../editors/host_weight.ts";
import { fingerprint } from "../../../engine/models/fingerprint.ts";
import { loadModel } from "../../../engine/models/load.ts";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { weight } from "../../../engine/models/model.ts";
import { withGpu } from "../../_gpu.ts";
import { modelFolder, NO_TOKENIZER } from "../../patches/_models.ts";
import { fixtures, tensorsOf } from "../_fixtures.ts";
import { close, ours } from "./_ke.ts";

type Ids = [prompt: number[], target: number[]];
type Theirs = { edit: Ids; outer: Ids; loc: Ids; before: number[] };

const spec = JSON.parse(await Deno.readTextFile(`${fixtures}ke/ke.json`));
const tensors = await tensorsOf(`${fixtures}ke/ke.safetensors`);

const continuation = ([prompt, target]: Ids) => ({ prompt, target });
const steps: EditGroup[][] = spec.groups.map((groups: Theirs[]) =>
  groups.map(({ edit, outer, loc, before }): EditGroup => [
    { edit: continuation(edit), outer: continuation(outer), loc: continuation(loc), before },
  ])
);

const OPTIONS: ConstrainedOptions = {
  ...{ lr: spec.lr, lrAlpha: spec.lr_alpha, warmup: spec.warmup, steps: spec.steps, smoothing: spec.eps },
  margin: { start: spec.margin, floor: spec.margin },
};

/** Their maps under our roles. */
function mapsOf(roles: readonly string[]): Map<string, string> {
  return new Map(roles.map((role) => {
    const [, layer, part, map] = role.split(".");
    const block = part === "attn" ? "self_attn" : "mlp";
    return [role, `inner_model_layers_${layer}_${block}_${map}_proj`];
  }));
}

async function setting(gpu: Gpu, options = OPTIONS) {
  using owned = new DisposableStack();
  const model = owned.use(await loadModel(gpu, modelFolder(spec.model), NO_TOKENIZER));
  const roles = blockMaps(model, Array.from({ length: model.dims.layers }, (_, i) => i));
  const { lstm, condition, hidden, max_scale: maxScale, separators } = spec;
  const shape = { roles, lstm, condition, hidden, maxScale, biasRate: 2 };
  const network = owned.use(
    keNetwork(model, shape, ours(tensors, "start", mapsOf(roles)), separators),
  );
  const learner = owned.use(new ConstrainedLearner(model, network, options));
  const kept = owned.move();
  return { model, roles, network, learner, [Symbol.dispose]: () => kept.dispose() };
}

Deno.test(
  "KE edits every matrix of the blocks, and its factors are the authors' materialised change",
  withGpu(async (gpu) => {
    using set = await setting(gpu);
    const { model, roles, network } = set;
    const theirs = [...tensors.keys()].filter((name) => name.startsWith("shift."));
    deepStrictEqual(theirs.map((name) => name.slice(6)).sort(), roles.toSorted());
    const [{ edit, before }] = steps[0][0];
    const { deltas } = await makeChanges(model, network, [{ ...edit, before, group: 0 }]);
    for (const delta of deltas) {
      strictEqual(weight(model, delta.role).layout, "out_in");
      const shift = delta.dense ?? denseOf(delta);
      close(`ΔW of ${delta.role}`, shift, tensors.get(`shift.${delta.role}`)!);
    }
  }),
);

Deno.test(
  "six steps of KE's constrained training agree with the authors', and the base keeps its weights",
  withGpu(async (gpu) => {
    using set = await setting(gpu);
    const { model, roles, network, learner } = set;
    const before = await fingerprint(model);
    let last = 1;
    for (const [i, groups] of steps.entries()) {
      learner.step(groups, i);
      const { edit, loc, alpha } = await learner.progress();
      const want = spec.log[i];
      close(`cr of step ${i}`, [edit], [want.cr]);
      close(`kl of step ${i}`, [loc], [want.kl]);
      close(`α after step ${i}`, [alpha!], [want.alpha]);
      // The first step of a warm-up has a rate of nothing.
      ok(
        loc > spec.margin && (i === 0 ? alpha === 1 : alpha! > last),
        "α rises while kl is above the margin",
      );
      last = alpha!;
    }
    const found = await readNumbers(model, networkTensors(network));
    const want = ours(tensors, "final", mapsOf(roles));
    for (const [name, { values }] of found) close(name, values, want.get(name)!);
    strictEqual(await fingerprint(model), before);
  }),
);

Deno.test(
  "α falls while kl is below the margin, never below 0, and the margin tightens to its floor",
  withGpu(async (gpu) => {
    using set = await setting(gpu, {
      ...{ ...OPTIONS, lr: 1e-9, lrAlpha: 0.5, warmup: 0, steps: 100 },
      margin: { start: 10, floor: 7 },
    });
    const { learner } = set;
    const alphas = [];
    for (let i = 0; i < 3; i++) {
      learner.step(steps[0], i);
      alphas.push((await learner.progress()).alpha!);
    }
    deepStrictEqual(alphas, [0, 0, 0]);
    const share = { locality: 1, editLoss: 0, locLoss: 0, examples: 1 };
    const margins = [];
    for (const edit of [0.9, 0.95, 0.95]) {
      learner.validated({ ...share, edit, paraphrase: edit });
      margins.push((await learner.progress()).margin);
    }
    deepStrictEqual(margins, [10, 8, 7]);
  }),
);

Deno.test(
  "a constrained training goes on from its state to the same bits, multiplier and margin included",
  withGpu(async (gpu) => {
    const options = { ...OPTIONS, margin: { start: 0.3, floor: 1e-3 } };
    const good = { edit: 1, paraphrase: 1, locality: 1, editLoss: 0, locLoss: 0, examples: 1 };
    using whole = await setting(gpu, options);
    using broken = await setting(gpu, options);
    for (let i = 0; i < 4; i++) {
      whole.learner.step(steps[i], i);
      if (i === 1) {
        whole.learner.validated(good);
        const state = await whole.learner.state();
        broken.learner.restore(new Map([...state].map(([name, { values }]) => [name, values])));
      }
      if (i > 1) broken.learner.step(steps[i], i);
    }
    whole.learner.validated(good);
    broken.learner.validated(good);
    deepStrictEqual(await broken.learner.state(), await whole.learner.state());
  }),
);
