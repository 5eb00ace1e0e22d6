/**
 * MALMEN against its authors' own code (ChenmienTan/malmen): a map's shift for given rows, and the gradients of all that
 * is learned, ridge included. The fixture is made by tools/fixtures/malmen.py. Dual and primal solves, a huge ridge and
 * the ridge's gradient by differences are in tests/engine/ops/ridge_test.ts.
 */
import { ok } from "node:assert/strict";
import { applyDeltas } from "../../../editors/edit.ts";
import { networkTensors, readNumbers } from "../../../editors/hypernetworks/learner.ts";
import { makeChanges } from "../../../editors/hypernetworks/make.ts";
import { projections } from "../../../editors/hypernetworks/maps.ts";
import { malmenNetwork } from "../../../editors/hypernetworks/malmen_network.ts";
import { loadModel } from "../../../engine/models/load.ts";
import { type Model, weight } from "../../../engine/models/model.ts";
import { Tape } from "../../../engine/ops/context.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { fromHost } from "../../../engine/tensor/transfer.ts";
import { evaluate, withGpu } from "../../_gpu.ts";
import { relativeError } from "../../engine/models/_fixtures.ts";
import { modelFolder, NO_TOKENIZER } from "../../patches/_models.ts";
import { fixtures, tensorsOf } from "../_fixtures.ts";

/** The bound, on a whole tensor relative to its norm. */
const TOLERANCE = 1e-4;

function close(name: string, got: ArrayLike<number>, want: ArrayLike<number>) {
  const error = relativeError(got, want);
  ok(error <= TOLERANCE, `${name} is off by ${error.toExponential(2)} relative`);
}

const INNER = 14, OUT = 10, ROWS = 9;

/** [rows, cols] → [cols, rows] */
function turned(values: Float32Array, rows: number, cols: number): Float32Array {
  return Float32Array.from(values, (_, i) => values[(i % rows) * cols + Math.floor(i / rows)]);
}

/** Their tensors under our names; our A and C are their B and A turned. */
function ours(tensors: ReadonlyMap<string, Float32Array>, prefix: "net" | "grad"): Map<string, Float32Array> {
  const of = (name: string) => tensors.get(`${prefix}.${name}`)!;
  const width = INNER + OUT, name = `${INNER}x${OUT}`;
  return new Map(
    [0, 1].flatMap((i): [string, Float32Array][] => {
      const rank = of(`blocks.${i}.A`).length / width;
      return [
        [`${name}.${i}.C`, turned(of(`blocks.${i}.A`), width, rank)],
        [`${name}.${i}.A`, turned(of(`blocks.${i}.B`), rank, width)],
        [`${name}.${i}.bias`, of(`blocks.${i}.bias`)],
        [`${name}.${i}.scale`, of(`blocks.${i}.scale.weight`)],
        [`${name}.${i}.shift`, of(`blocks.${i}.shift.weight`)],
      ];
    }).concat([["edit_lrs", of("lr.weight")], ["lambda", of("lamda.weight")]]),
  );
}

Deno.test(
  "MALMEN's shift and gradients agree with the authors'",
  withGpu(async (gpu) => {
    const tensors = await tensorsOf(`${fixtures}mend/malmen.safetensors`);
    const roles = ["layer.0.mlp.down", "layer.1.mlp.down"];
    const maps = new Map(roles.map((role) => [role, { in: INNER, out: OUT }]));
    const model = { gpu, name: "maps", weights: maps } as unknown as Model;
    const [mean, scatter] = ["mean", "var"].map((name) => tensors.get(`net.normalizer.${name}`)!);
    const name = `${INNER}x${OUT}`;
    const numbers = new Map<string, Float32Array | Uint32Array>([
      ...ours(tensors, "net"),
      [`${name}.count`, Uint32Array.from(tensors.get("net.normalizer.n")!)],
      [`${name}.u.mean`, mean.slice(0, INNER)],
      [`${name}.u.scatter`, scatter.slice(0, INNER)],
      [`${name}.delta.mean`, mean.slice(INNER)],
      [`${name}.delta.scatter`, scatter.slice(INNER)],
    ]);
    using network = malmenNetwork(model, { roles, rank: 6, editLr: 1, limit: 3e38 }, numbers);
    using owned = new DisposableStack();
    const own = (label: string, shape: number[], values: Float32Array | Uint32Array) =>
      owned.adopt(fromHost(gpu, label, shape, values), (t) => freeTensor(gpu, t));
    const K = tensors.get("keys")!, G = tensors.get("G")!;
    const given = {
      u: own("keys", [ROWS, INNER], K),
      delta: own("grads", [ROWS, OUT], tensors.get("grads")!),
      groups: own("groups", [ROWS], new Uint32Array(ROWS)),
      groupList: Array(ROWS).fill(0),
    };
    // ⟨G, KᵀV⟩ has the gradient KG to V.
    const dV = own(
      "dV",
      [ROWS, OUT],
      new Float32Array(ROWS * OUT).map((_, at) => {
        let sum = 0;
        for (let i = 0; i < INNER; i++) sum += K[Math.floor(at / OUT) * INNER + i] * G[i * OUT + at % OUT];
        return sum;
      }),
    );
    const nothing = own("nothing", [ROWS, OUT], new Float32Array(ROWS * OUT));
    const into = network.parameters.map(({ name, tensor: { shape } }) =>
      owned.adopt(createTensor(gpu, `d ${name}`, shape), (t) => freeTensor(gpu, t))
    );
    const [V, ...grads] = await evaluate(gpu, ({ gpu, r }) => {
      const tape = new Tape(), ctx = { gpu, r, tape };
      network.parameters.forEach(({ tensor }) => tape.require(tensor));
      const gradients = new Map(roles.map((role) => [role, given]));
      const factors = network.factors(ctx, { gradients, edits: [], groups: 1, learn: false, owned });
      const { values } = factors.get(roles[1])!;
      tape.setGrad(values, dV);
      tape.setGrad(factors.get(roles[0])!.values, nothing);
      tape.backward();
      return [values, ...network.parameters.map(({ tensor }, i) => tape.grad(tensor) ?? into[i])];
    });
    const shift = new Float32Array(INNER * OUT).map((_, at) => {
      let sum = 0;
      for (let n = 0; n < ROWS; n++) sum += K[n * INNER + Math.floor(at / OUT)] * V[n * OUT + at % OUT];
      return sum;
    });
    close("shift", shift, tensors.get("shift")!);
    const want = ours(tensors, "grad");
    network.parameters.forEach(({ name }, i) => close(`gradient of ${name}`, grads[i], want.get(name)!));
  }),
);

Deno.test(
  "MALMEN takes rows at the tokens that predict answers only, and many edits at once lower their losses",
  withGpu(async (gpu) => {
    using model = await loadModel(gpu, modelFolder("gpt2-tiny"), NO_TOKENIZER);
    const roles = projections(model, [0, 1, 2]);
    const edits = Array.from({ length: 7 }, (_, i) => (
      { prompt: [5 + i, 17, 40 - i, 41, 8], target: [60 - i, 25 + i], group: 0 }
    ));
    using fresh = malmenNetwork(model, { roles, rank: 4, editLr: 1e-3 });
    // Moments that leave rows as they are.
    const numbers = new Map(
      [...await readNumbers(model, networkTensors(fresh))].map(([name, { values }]) => {
        if (!fresh.buffers.has(name)) return [name, values];
        if (name.endsWith(".count")) return [name, Uint32Array.of(2)];
        return [name, new Float32Array(values.length).fill(name.endsWith(".scatter") ? 1 : 0)];
      }),
    );
    using network = malmenNetwork(model, { roles, rank: 4, editLr: 1e-2 }, numbers);
    const made = await makeChanges(model, network, edits);
    for (const { role, rank, dense } of made.deltas) {
      ok(dense !== undefined || rank === 14, `${role} of ${weight(model, role).in} has rank ${rank}`);
    }
    using _on = applyDeltas(model, made.deltas);
    const after = await makeChanges(model, network, edits);
    made.losses.forEach((loss, i) => ok(after.losses[i] < loss, `edit ${i}: ${loss} → ${after.losses[i]}`));
  }),
);
