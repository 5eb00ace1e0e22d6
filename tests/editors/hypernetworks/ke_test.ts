/**
 * KE's update against the released code (eric-mitchell/mend's algs/efk.py, De Cao et al.'s network): the factored change
 * is their materialised one, and all gradients agree. The fixture is made by tools/fixtures/ke.py.
 */
import { ok, rejects, strictEqual } from "node:assert/strict";
import { Learner } from "../../../editors/hypernetworks/learner.ts";
import { lastLayers, mlpMaps } from "../../../editors/hypernetworks/maps.ts";
import { keNetwork } from "../../../editors/hypernetworks/ke_network.ts";
import type { MapGradients } from "../../../editors/hypernetworks/gradients.ts";
import { fingerprint } from "../../../engine/models/fingerprint.ts";
import { loadModel } from "../../../engine/models/load.ts";
import type { Model } from "../../../engine/models/model.ts";
import { Tape } from "../../../engine/ops/context.ts";
import { freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import { modelFolder, NO_TOKENIZER } from "../../patches/_models.ts";
import { fixtures, tensorsOf } from "../_fixtures.ts";
import { close, ours } from "./_ke.ts";
import { mendFixture } from "./_mend.ts";

const ROWS = 5, WIDTH = 8, LSTM = 7, CONDITION = 9;

/** Their maps under our roles. */
const MAPS = new Map([
  ["layer.0.mlp.up", { theirs: "a", out: 10, in: 6 }],
  ["layer.0.mlp.down", { theirs: "b", out: 6, in: 10 }],
]);

const THEIRS = new Map([...MAPS].map(([role, { theirs }]) => [role, theirs]));

Deno.test(
  "KE's change and gradients agree with the released code",
  withGpu(async (gpu) => {
    const tensors = await tensorsOf(`${fixtures}mend/ke.safetensors`);
    using owned = new DisposableStack();
    const own = (label: string, shape: number[], values: Float32Array | Uint32Array) =>
      owned.adopt(fromHost(gpu, label, shape, values), (t) => freeTensor(gpu, t));
    const table = tensors.get("table")!;
    const model = {
      ...{ gpu, name: "maps", weights: MAPS },
      tensors: new Map([["embed", own("table", [table.length / WIDTH, WIDTH], table)]]),
    } as unknown as Model;
    const shape = { roles: [...MAPS.keys()], lstm: LSTM, condition: CONDITION, hidden: 7, maxScale: 0.8 };
    using network = keNetwork(model, shape, ours(tensors, "net", THEIRS), { to: [], at: [] });
    const ids = [...tensors.get("ids")!];
    const edits = [{ before: ids.slice(0, 2), target: ids.slice(2, 3), prompt: ids.slice(3), group: 0 }];
    const gradients = new Map(
      [...MAPS].map(([role, { theirs, in: inner, out }]): [string, MapGradients] => [role, {
        u: own("u", [ROWS, inner], tensors.get(`${theirs}.u`)!),
        delta: own("delta", [ROWS, out], tensors.get(`${theirs}.delta`)!),
        groups: own("groups", [ROWS], new Uint32Array(ROWS)),
        groupList: Array(ROWS).fill(0),
      }]),
    );

    // Twice: the second run has the gradients of ⟨G, ΔW⟩ to the factors that the first one made.
    const run = (seeds?: Tensor[]) =>
      evaluate(gpu, ({ gpu, r }) => {
        const tape = new Tape(), ctx = { gpu, r, tape };
        network.parameters.forEach(({ tensor }) => tape.require(tensor));
        const factors = network.factors(ctx, { gradients, edits, groups: 1, learn: true, owned });
        const made = shape.roles.flatMap((role) => [factors.get(role)!.keys, factors.get(role)!.values]);
        if (!seeds) return made;
        made.forEach((t, i) => tape.setGrad(t, seeds[i]));
        tape.backward();
        return network.parameters.map(({ tensor }) => tape.grad(tensor)!);
      });
    const made = await run();
    const seeds = shape.roles.flatMap((role, m) => {
      const { theirs, in: inner, out } = MAPS.get(role)!;
      const [keys, values] = made.slice(2 * m, 2 * m + 2), G = tensors.get(`${theirs}.G`)!;
      const rank = keys.length / inner;
      const shift = new Float32Array(out * inner), dK = new Float32Array(keys.length);
      const dV = new Float32Array(values.length);
      for (let k = 0; k < rank; k++) {
        for (let o = 0; o < out; o++) {
          for (let i = 0; i < inner; i++) {
            shift[o * inner + i] += values[k * out + o] * keys[k * inner + i];
            dK[k * inner + i] += G[o * inner + i] * values[k * out + o];
            dV[k * out + o] += G[o * inner + i] * keys[k * inner + i];
          }
        }
      }
      close(`ΔW of ${role}`, shift, tensors.get(`${theirs}.shift`)!);
      return [own("dK", [rank, inner], dK), own("dV", [rank, out], dV)];
    });
    const grads = await run(seeds), want = ours(tensors, "grad", THEIRS, true);
    network.parameters.forEach(({ name }, i) => close(`gradient of ${name}`, grads[i], want.get(name)!));
  }),
);

Deno.test(
  "training KE leaves the base's embeddings as they are, and several edits are read each by itself",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const before = await fingerprint(model);
    const roles = mlpMaps(model, lastLayers(model, 2));
    const separators = { to: [3], at: [4] };
    const shape = { roles, lstm: 4, condition: 6, hidden: 5, maxScale: 1 };
    using network = keNetwork(model, shape, undefined, separators);
    using learner = new Learner(model, network, { c_edit: 1, c_loc: 0, lr: 5e-2, clip: 100 });
    const { groups } = await mendFixture("gpt2-tiny");
    const losses = [];
    for (let i = 0; i < 12; i++) {
      learner.step(groups, i);
      losses.push((await learner.progress()).edit);
    }
    ok(losses.at(-1)! < 0.9 * losses[0], `the loss went from ${losses[0]} to ${losses.at(-1)}`);
    strictEqual(await fingerprint(model), before);
    await rejects(
      // deno-lint-ignore require-await -- the op throws as it is recorded
      async () => learner.step([groups.flat()], 12),
      /KE reads one edit at a time/,
    );
  }),
);
