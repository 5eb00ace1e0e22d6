/**
 * MEND against its authors' own code (eric-mitchell/mend) on the same models, token ids and numbers: the network for
 * given u and δ, and two steps of training with its losses, first gradient and statistics. The released code adds
 * the update where the paper subtracts it and has no bound for rows far from the mean, and so has the network here. Fixtures: tools/fixtures/mend.py.
 */
import { deepStrictEqual, ok } from "node:assert/strict";
import { Learner, networkTensors, readNumbers } from "../../../editors/hypernetworks/learner.ts";
import { mlpMaps, shapeGroups } from "../../../editors/hypernetworks/maps.ts";
import { mendNetwork } from "../../../editors/hypernetworks/mend_network.ts";
import { recordBase, recordLosses } from "../../../editors/hypernetworks/step.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { type Ctx, Tape } from "../../../engine/ops/context.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import { relativeError } from "../../engine/models/_fixtures.ts";
import { modelFolder, NO_TOKENIZER } from "../../patches/_models.ts";
import { mendFixture, MODELS, numbersOf } from "./_mend.ts";

/** The bound, on a whole tensor relative to its norm. */
const TOLERANCE = 1e-4;

/** What they do otherwise: they add, and rows far from the mean go in as they are. */
const THEIRS = { sign: 1, limit: 3e38 } as const;

function close(name: string, got: ArrayLike<number>, want: ArrayLike<number>) {
  const error = relativeError(got, want);
  ok(error <= TOLERANCE, `${name} is off by ${error.toExponential(2)} relative`);
}

for (const name of MODELS) {
  Deno.test(
    `MEND's network agrees with the authors' for given u and δ (${name})`,
    withGpu(async (gpu) => {
      const { spec, tensors } = await mendFixture(name);
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      const all = mlpMaps(model, spec.layers);
      const { in: inner, out, roles } = shapeGroups(model, all)[0];
      deepStrictEqual(spec.group, `${inner}x${out}`);
      const numbers = new Map([
        ...numbersOf(tensors, "final.", true),
        ["edit_lrs", new Float32Array(roles.length).fill(1)] as const,
      ]);
      using network = mendNetwork(model, { roles, rank: spec.rank, editLr: 1, ...THEIRS }, numbers);
      const rows = tensors.get("transform.u")!.length / inner;
      using owned = new DisposableStack();
      const own = (label: string, shape: number[], values: Float32Array | Uint32Array) =>
        owned.adopt(fromHost(gpu, label, shape, values), (t) => freeTensor(gpu, t));
      const given = {
        u: own("u", [rows, inner], tensors.get("transform.u")!),
        delta: own("delta", [rows, out], tensors.get("transform.delta")!),
        groups: own("groups", [rows], new Uint32Array(rows)),
        groupList: Array(rows).fill(0),
      };
      // Their rows are those of the group's second map.
      const gradients = new Map(roles.map((role) => [role, given]));
      const [keys, values] = await evaluate(gpu, (ctx) => {
        const factors = network.factors(ctx, { gradients, edits: [], groups: 1, learn: false, owned });
        const { keys, values } = factors.get(roles[1])!;
        return [keys, values];
      });
      // A row of nothing is left out by them, and is 0 with us, by δ̃ alone.
      const live = Array.from({ length: rows }, (_, r) => r).filter((r) => r !== 2 && r !== 5);
      const pick = (side: Float32Array, width: number) =>
        live.flatMap((r) => [...side.subarray(r * width, (r + 1) * width)]);
      close("ũ", pick(keys, inner), tensors.get("transform.u_out")!);
      close("δ̃", pick(values, out), tensors.get("transform.delta_out")!);
      for (const r of [2, 5]) ok(values.subarray(r * out, (r + 1) * out).every((x) => x === 0));
    }),
  );

  Deno.test(
    `MEND's training agrees with the authors' over two steps (${name})`,
    withGpu(async (gpu) => {
      const { spec, tensors, groups } = await mendFixture(name);
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      const roles = mlpMaps(model, spec.layers);
      const shape = { roles, rank: spec.rank, editLr: spec.edit_lr, ...THEIRS };
      const start = numbersOf(tensors, "start.", false);
      using network = mendNetwork(model, shape, start);
      const weights = { c_edit: 0.1, c_loc: 1 };
      using learner = new Learner(model, network, { ...weights, lr: spec.lr, clip: spec.clip });
      for (const [i, { edit, loc, norm }] of spec.losses.entries()) {
        learner.step([groups[i]], i);
        const got = await learner.progress();
        close(`losses of step ${i}`, [got.edit / 0.1, got.loc, got.norm], [edit, loc, norm]);
      }
      const after = await readNumbers(model, networkTensors(network));
      for (const [name, { values }] of after) {
        const want = tensors.get(`final.${name}`) ?? tensors.get(`stats.${name}`)!;
        // Statistics of columns that hardly move are compared by what they divide by.
        const by = (list: ArrayLike<number>) =>
          name.endsWith(".scatter") ? Array.from(list, Math.sqrt) : list;
        close(`${name} after two steps`, by(values), by(want));
      }

      using first = mendNetwork(model, shape, start);
      using owned = new DisposableStack();
      const tape = new Tape();
      const r = gpu.recorder(), ctx: Ctx = { gpu, r, tape };
      const into = first.parameters.map(({ name, tensor: { shape } }) =>
        owned.adopt(
          fromHost(gpu, `d ${name}`, shape, new Float32Array(shape.reduce((a, b) => a * b, 1))),
          (t) => freeTensor(gpu, t),
        )
      );
      first.parameters.forEach(({ tensor }, i) => tape.require(tensor, into[i]));
      const base = recordBase({ gpu, r }, model, first, [groups[0]], owned);
      recordLosses(ctx, model, first, [groups[0]], base, weights, { learn: true, owned });
      tape.backward();
      using plan = r.finish("first gradient");
      plan.run();
      const grads = await readNumbers(model, new Map(first.parameters.map(({ name }, i) => [name, into[i]])));
      for (const [name, { values }] of grads) {
        close(`gradient of ${name}`, values, tensors.get(`grad.${name}`)!);
      }
    }),
  );
}
