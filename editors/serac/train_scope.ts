/**
 * Trains SERAC's scope classifier by the original's objective (Mitchell et al. 2022, section 3.2; guide section
 * 6.4): an embedding each for what is asked and for each memory, D the square of their distance,
 *
 *   loss = mean of D over pairs of one fact − mean of log(1 − e^−D) over pairs of two facts
 *
 * The encoder is frozen and its embeddings are made once; what is trained is a linear map on them.
 */
import type { Gpu } from "../../engine/gpu/device.ts";
import type { Plan } from "../../engine/gpu/plan.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { fill } from "../../engine/ops/elementwise.ts";
import { linear, type Weight } from "../../engine/ops/linear.ts";
import { groupMean } from "../../engine/ops/rows.ts";
import { scopeLoss } from "../../engine/ops/scope_loss.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors, writeTensor } from "../../engine/tensor/transfer.ts";
import type { Projection } from "../prompts/edit.ts";
import { project } from "../prompts/scope.ts";
import { optimiser } from "./adam.ts";
import { type Course, follow, type Schedule } from "./course.ts";
import type { Triple } from "./data.ts";

/** How to train. */
export interface ScopeTraining extends Omit<Schedule, "val_interval" | "patience" | "onBest"> {
  /** Width of the space in which distances are taken. */
  width: number;
  /** Triples a step. */
  batch: number;
  /** Adam's at the start; it falls to zero in {@link STAGES} steps, and after each there is a validation. */
  lr: number;
  seed: number;
}

/** A learning rate is part of a recorded step, so it falls in stages. */
const STAGES = 12;

/**
 * Trains the map, and keeps the one that was best on the held triples.
 * @param embeddings of all wordings, [texts, inner]
 * @param triples the same ones in every session: those that an earlier one learnt from are drawn and left out
 * @param textOf the row of a record's wording
 * @throws {PartDivergedError} when a value is not finite
 */
export async function trainScope(
  gpu: Gpu,
  embeddings: Float32Array,
  inner: number,
  triples: () => Triple,
  held: readonly Triple[],
  textOf: (place: [record: number, wording: number]) => number,
  options: ScopeTraining,
): Promise<{ projection: Projection; course: Course }> {
  const { width, steps, batch, lr, seed, reached } = options;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const map = owned.use(scopeMap(gpu, embeddings, inner, width, seed));
  const { whitened, parameters } = map;
  const adam = owned.use(optimiser(gpu, parameters));
  const pairs = 2 * batch;
  const inputs = ["asked", "memories"].map((name) => own(createTensor(gpu, name, [pairs, inner])));
  const flags = Uint32Array.from({ length: pairs }, (_, i) => i < batch ? 1 : 0);
  const positive = own(fromHost(gpu, "of one fact", [pairs], flags));
  const weights = own(fromHost(gpu, "pair weights", [pairs], new Float32Array(pairs).fill(1 / batch)));
  const nowhere = own(fromHost(gpu, "one group", [pairs], new Uint32Array(pairs)));
  const ones = own(fromHost(gpu, "ones", [pairs], new Float32Array(pairs).fill(1)));
  const total = own(createTensor(gpu, "scope loss", [1, 1]));

  const record = (rate: number) => {
    const tape = new Tape();
    const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
    adam.require(ctx);
    const [a, b] = inputs.map((x) => linear(ctx, x, map.weight));
    const loss = scopeLoss(ctx, { a, b, positive, weights });
    groupMean(ctx, reshape(loss, [pairs, 1]), nowhere, ones, total);
    const seed = temp(ctx, "d loss", [pairs]);
    fill(ctx, seed, 1);
    tape.setGrad(loss, seed);
    tape.backward();
    adam.step(ctx, total, rate);
    return ctx.r.finish("scope step");
  };

  const rows = [new Float32Array(pairs * inner), new Float32Array(pairs * inner)];
  const put = (side: number, at: number, text: number) =>
    rows[side].set(whitened.subarray(text * inner, (text + 1) * inner), at * inner);
  const each = Math.ceil(steps / STAGES), first = reached?.step ?? 0;
  for (let seen = 0; seen < first * batch; seen++) triples();
  let plan: Plan | undefined;
  owned.defer(() => plan?.[Symbol.dispose]());
  const course = await follow(gpu, {
    name: "scope classifier",
    optimiser: adam,
    loss: total,
    step(index) {
      if (!plan || index % each === 0) {
        plan?.[Symbol.dispose]();
        plan = record(lr * (1 - (index - index % each) / steps));
      }
      for (let i = 0; i < batch; i++) {
        const { test, memory, other } = triples();
        put(0, i, textOf(test));
        put(0, batch + i, textOf(other));
        put(1, i, textOf(memory));
        put(1, batch + i, textOf(memory));
      }
      inputs.forEach((t, side) => writeTensor(gpu, t, rows[side]));
      plan.run();
    },
    async held() {
      const now = await map.projection();
      return lossOf(held, (place) => {
        const at = textOf(place) * inner;
        return project(embeddings.subarray(at, at + inner), now);
      });
    },
  }, { ...options, val_interval: each });
  return { projection: await map.projection(), course };
}

/** The objective over triples, on the host. */
function lossOf(triples: readonly Triple[], place: (text: [number, number]) => Float32Array): number {
  const distance = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0);
  const losses = triples.map(({ test, memory, other }) => {
    const m = place(memory);
    const apart = Math.max(distance(place(other), m), 1e-6);
    return distance(place(test), m) - Math.log(-Math.expm1(-apart));
  });
  return losses.reduce((a, b) => a + b, 0) / losses.length;
}

/** A linear map that is being trained on embeddings whose columns were made to have mean 0 and deviation 1. */
export interface ScopeMap extends Disposable {
  weight: Weight;
  parameters: Tensor[];
  /** The embeddings as the map takes them, [texts, inner]. */
  whitened: Float32Array;
  /** The map as it is now, on embeddings as they are. Waits once. */
  projection(): Promise<Projection>;
}

/** A new map, uniform within ±1/√inner, no bias. */
export function scopeMap(
  gpu: Gpu,
  embeddings: Float32Array,
  inner: number,
  width: number,
  seed: number,
): ScopeMap {
  const { mean, deviation } = spreadOf(embeddings, inner);
  const random = seededRandom(seed);
  const bound = 1 / Math.sqrt(inner);
  const start = Float32Array.from({ length: width * inner }, () => bound * (2 * random() - 1));
  const matrix = fromHost(gpu, "scope matrix", [width, inner], start, { owner: "training" });
  const bias = createTensor(gpu, "scope bias", [width], { owner: "training" });
  return {
    weight: {
      ...{
        role: "scope",
        name: "scope",
        matrix,
        bias,
        layout: "out_in",
        out: width,
        in: inner,
        overlays: [],
      },
    },
    parameters: [matrix, bias],
    whitened: embeddings.map((x, i) => (x - mean[i % inner]) / deviation[i % inner]),
    async projection() {
      const [values, offset] = await readTensors(gpu, matrix, bias) as Float32Array[];
      return { mean, matrix: values.map((x, i) => x / deviation[i % inner]), bias: offset };
    },
    [Symbol.dispose]: () => [matrix, bias].forEach((t) => freeTensor(gpu, t)),
  };
}

/** Mean and standard deviation of every column. */
function spreadOf(values: Float32Array, width: number): { mean: Float32Array; deviation: Float32Array } {
  const rows = values.length / width;
  const sum = new Float64Array(width), squares = new Float64Array(width);
  for (let i = 0; i < values.length; i++) sum[i % width] += values[i];
  const mean = Float32Array.from(sum, (x) => x / rows);
  for (let i = 0; i < values.length; i++) squares[i % width] += (values[i] - mean[i % width]) ** 2;
  return { mean, deviation: Float32Array.from(squares, (x) => Math.sqrt(x / rows) + 1e-5) };
}
