/** MEND's acceptance tests (memory-and-meta guide section 18) and what else must hold of trained editors. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { applyDeltas } from "../../../editors/edit.ts";
import { withFactors } from "../../../editors/hypernetworks/edited.ts";
import { collectGradients } from "../../../editors/hypernetworks/gradients.ts";
import { makeChanges } from "../../../editors/hypernetworks/make.ts";
import { lastLayers, mlpMaps } from "../../../editors/hypernetworks/maps.ts";
import { recordBase, recordLosses } from "../../../editors/hypernetworks/step.ts";
import { answerOf, packScored } from "../../../editors/hypernetworks/texts.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { finalNorm, forward, weight } from "../../../engine/models/model.ts";
import { type Ctx, Tape } from "../../../engine/ops/context.ts";
import { matmul } from "../../../engine/ops/matmul.ts";
import { vocabLoss } from "../../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, type Tensor } from "../../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import { relativeError } from "../../engine/models/_fixtures.ts";
import { logitsOf, modelFolder, NO_TOKENIZER } from "../../patches/_models.ts";
import { mendFixture, MODELS, untrained } from "./_mend.ts";

const EDIT = { prompt: [5, 17, 40, 41, 8], target: [60, 25], group: 0 };
const TEXTS = [[5, 17, 40, 41, 8, 60], [9, 33, 2]];

/** Dense f32 arithmetic in another order, twice. */
const REORDERED = 1e-5;

for (const name of MODELS) {
  Deno.test(
    `Σδuᵀ of the collected rows is the gradient of each map (${name})`,
    withGpu(async (gpu) => {
      using model = await loadModel(gpu, modelFolder(name), NO_TOKENIZER);
      const roles = mlpMaps(model, lastLayers(model, 2));
      using packed = packScored(model, [answerOf(EDIT, 0)]);
      const targets = fromHost(gpu, "targets", [2], Uint32Array.from(EDIT.target));
      const weights = fromHost(gpu, "weights", [2], Float32Array.of(0.5, 0.5));
      const want = { targets, weights };
      const products = await evaluate(gpu, ({ gpu, r }) => {
        const ctx = { gpu, r };
        const { gradients } = collectGradients(ctx, model, roles, packed, want, { from: 0 });
        return roles.map((role) => {
          const { u, delta } = gradients.get(role)!, map = weight(model, role);
          const inOut = map.layout === "in_out";
          const G = createTensor(gpu, role, map.matrix.shape);
          matmul(ctx, "tn", inOut ? u : delta, inOut ? delta : u, G);
          return G;
        });
      });
      const direct = await evaluate(gpu, ({ gpu, r }) => {
        const tape = new Tape(), ctx = { gpu, r, tape };
        roles.forEach((role) => tape.require(weight(model, role).matrix));
        const h = forward(ctx, model, packed.rows, { select: packed.select });
        vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), want);
        tape.backward();
        return roles.map((role) => tape.grad(weight(model, role).matrix)!);
      });
      roles.forEach((role, i) => {
        const error = relativeError(products[i], direct[i]);
        ok(error <= REORDERED, `${role} is off by ${error}`);
      });
      [targets, weights].forEach((t) => freeTensor(gpu, t));
    }),
  );
}

Deno.test(
  "an untrained network gives the rows back to the bit, and the first step reaches A and not C",
  withGpu(async (gpu) => {
    using both = await untrained(gpu, { editLr: 1, sign: 1 });
    const { model, network } = both;
    using owned = new DisposableStack();
    const rows = 6;
    const gradients = new Map(network.roles.map((role) => {
      const { in: inner, out } = weight(model, role);
      const own = (label: string, width: number) =>
        owned.adopt(
          fromHost(
            gpu,
            label,
            [rows, width],
            Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i)),
          ),
          (t) => freeTensor(gpu, t),
        );
      const groups = owned.adopt(
        fromHost(gpu, "groups", [rows], new Uint32Array(rows)),
        (t) => freeTensor(gpu, t),
      );
      return [role, { u: own("u", inner), delta: own("delta", out), groups, groupList: Array(rows).fill(0) }];
    }));
    const role = network.roles[0];
    const [keys, values, u, delta] = await evaluate(gpu, (ctx) => {
      const factors = network.factors(ctx, { gradients, edits: [], groups: 1, learn: false, owned });
      const given = gradients.get(role)!;
      return [factors.get(role)!.keys, factors.get(role)!.values, given.u, given.delta];
    });
    // Deviation 1 and the 1e-7 that is added to it, which f32 rounds to 1.0000001.
    const hat = (side: Float32Array) => side.map((x) => Math.fround(x / Math.fround(1 + 1e-7)));
    deepStrictEqual([...keys], [...hat(u)]);
    deepStrictEqual([...values], [...hat(delta)]);

    const { groups } = await mendFixture("gpt2-tiny");
    const grads = await firstGradients(model, network, groups[0]);
    for (const [name, values] of grads) {
      const moved = values.some((x) => x !== 0);
      if (name.endsWith(".A")) ok(moved, `${name} gets no gradient`);
      if (name.endsWith(".C")) ok(!moved, `${name} gets a gradient through A = 0`);
    }
  }),
);

/** Gradients of the outer text's loss alone to a network's parameters. */
async function firstGradients(
  model: Parameters<typeof recordBase>[1],
  network: Parameters<typeof recordBase>[2],
  group: Parameters<typeof recordBase>[3][number],
): Promise<Map<string, Float32Array>> {
  const { gpu } = model;
  using owned = new DisposableStack();
  const zeros = ({ name, tensor: { shape } }: { name: string; tensor: Tensor }) =>
    owned.adopt(createTensor(gpu, `d ${name}`, shape), (t) => freeTensor(gpu, t));
  const into = network.parameters.map(zeros);
  const tape = new Tape(), r = gpu.recorder(), ctx: Ctx = { gpu, r, tape };
  network.parameters.forEach(({ tensor }, i) => tape.require(tensor, into[i]));
  const base = recordBase({ gpu, r }, model, network, [group], owned);
  recordLosses(ctx, model, network, [group], base, { c_edit: 1, c_loc: 0 }, { learn: false, owned });
  tape.backward();
  using plan = r.finish("gradients");
  plan.run();
  const values = await readTensors(gpu, ...into) as Float32Array[];
  return new Map(network.parameters.map(({ name }, i) => [name, values[i]]));
}

Deno.test(
  "the factored forward pass is the dense one, and taking the change off leaves the model's bits",
  withGpu(async (gpu) => {
    for (const name of MODELS) {
      using both = await untrained(gpu, { name });
      const { model, network } = both;
      const before = await logitsOf(model, TEXTS);
      const { deltas } = await makeChanges(model, network, [EDIT]);
      using owned = new DisposableStack();
      // Factors as they come out of the network, in the rows of another text.
      const upload = (label: string, shape: number[], values: Float32Array | Uint32Array) =>
        owned.adopt(fromHost(gpu, label, shape, values), (t) => freeTensor(gpu, t));
      const turned = (side: Float32Array, rank: number) =>
        Float32Array.from(side, (_, i) => {
          const width = side.length / rank;
          return side[(i % width) * rank + Math.floor(i / width)];
        });
      const factors = new Map(deltas.map(({ role, rank, left, right }) => [role, {
        keys: upload("keys", [rank, right.length / rank], turned(right, rank)),
        values: upload("values", [rank, left.length / rank], turned(left, rank)),
        groups: upload("groups", [rank], new Uint32Array(rank)),
      }]));
      using packed = packScored(
        model,
        TEXTS.map((ids) => answerOf({ prompt: ids.slice(0, 2), target: ids.slice(2) }, 0)),
      );
      const hidden = (ctx: Ctx) => forward(ctx, withFactors(model, factors, packed), packed.rows);
      const [factored] = await evaluate(gpu, (ctx) => [hidden(ctx)]);
      const dense = deltas.map((delta) => {
        const { out, in: inner, layout } = weight(model, delta.role);
        const W = new Float32Array(out * inner);
        for (let k = 0; k < delta.rank; k++) {
          for (let o = 0; o < out; o++) {
            for (let i = 0; i < inner; i++) {
              W[layout === "out_in" ? o * inner + i : i * out + o] += delta.left[o * delta.rank + k] *
                delta.right[i * delta.rank + k];
            }
          }
        }
        return { ...delta, rank: 0, left: new Float32Array(), right: new Float32Array(), dense: W };
      });
      const applied = applyDeltas(model, dense);
      const [got] = await evaluate(gpu, (ctx) => [forward(ctx, model, packed.rows)]);
      applied[Symbol.dispose]();
      const error = relativeError(factored, got);
      ok(error <= REORDERED, `${name} is off by ${error}`);
      {
        using _on = applyDeltas(model, deltas);
        ok(relativeError(await logitsOf(model, TEXTS), before) > 1e-3);
      }
      deepStrictEqual(await logitsOf(model, TEXTS), before);
    }
  }),
);

Deno.test(
  "the two-stage backward pass is the direct one: dη = σ⟨∂L/∂W', Σδ̃ũᵀ⟩",
  withGpu(async (gpu) => {
    using both = await untrained(gpu, { editLr: 1e-3 });
    const { model, network } = both;
    const { groups: [[example]] } = await mendFixture("gpt2-tiny");
    const direct = (await firstGradients(model, network, [example])).get("edit_lrs")!;
    // Stage one: the gradient to the edited weights, in a model that really has them.
    const { deltas } = await makeChanges(model, network, [{ ...example.edit, group: 0 }]);
    using packed = packScored(model, [answerOf(example.outer, 0)]);
    const n = example.outer.target.length;
    const targets = fromHost(gpu, "targets", [n], Uint32Array.from(example.outer.target));
    const weights = fromHost(gpu, "weights", [n], new Float32Array(n).fill(1 / n));
    using _on = applyDeltas(model, deltas);
    const G = await evaluate(gpu, ({ gpu, r }) => {
      const tape = new Tape(), ctx = { gpu, r, tape };
      network.roles.forEach((role) => tape.require(weight(model, role).matrix));
      const h = forward(ctx, model, packed.rows, { select: packed.select });
      vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), { targets, weights });
      tape.backward();
      return network.roles.map((role) => tape.grad(weight(model, role).matrix)!);
    });
    // Stage two: the change is η Σδ̃ũᵀ, sign included.
    const staged = deltas.map(({ role, rank, left, right }, i) => {
      const { out, in: inner, layout } = weight(model, role);
      let sum = 0;
      for (let k = 0; k < rank; k++) {
        for (let o = 0; o < out; o++) {
          for (let j = 0; j < inner; j++) {
            sum += G[i][layout === "out_in" ? o * inner + j : j * out + o] * left[o * rank + k] *
              right[j * rank + k];
          }
        }
      }
      return sum / 1e-3;
    });
    ok(direct.length === staged.length);
    strictEqual(relativeError(staged, direct) <= 1e-4, true, `${staged} and ${direct}`);
    [targets, weights].forEach((t) => freeTensor(gpu, t));
  }),
);

Deno.test(
  "a small step of an untrained network lowers the edit's loss with minus, and raises it with plus",
  withGpu(async (gpu) => {
    for (const name of MODELS) {
      for (const sign of [-1, 1] as const) {
        using both = await untrained(gpu, { name, sign, editLr: 1e-3 });
        const { model, network } = both;
        const made = await makeChanges(model, network, [EDIT]);
        using _on = applyDeltas(model, made.deltas);
        const after = await makeChanges(model, network, [EDIT]);
        strictEqual(Math.sign(after.losses[0] - made.losses[0]), sign, `${name}, σ = ${sign}`);
      }
    }
  }),
);
