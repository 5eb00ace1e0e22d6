/**
 * LoRA (Hu et al. 2021, "LoRA: Low-rank adaptation of large language models") and AdaLoRA (Zhang et al. 2023),
 * as huggingface/peft 0.21 has them:
 *
 *   LoRA      ΔW = α/r · B A                     A random, B zero at the start
 *   AdaLoRA   ΔW = α/r₀ · P diag(Λ) Qᵀ           P and Q random, Λ zero; ‖PᵀP − I‖ and ‖QᵀQ − I‖ are penalised,
 *                                                and an allocator prunes Λ
 *
 * The factors lie on the model as an edit does, so their product is the edit.
 */
import { InputError } from "../../engine/io/errors.ts";
import type { Model } from "../../engine/models/model.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import { scaleColumns } from "../../engine/ops/column_scale.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import { fill, scale } from "../../engine/ops/elementwise.ts";
import type { Overlay, Weight } from "../../engine/ops/linear.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { normPenalty } from "../../engine/ops/optim.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { WeightDelta } from "../edit.ts";
import { allocate, type AllocatorState, budgetCuts, type BudgetSchedule } from "./allocator.ts";
import type { Adaptation } from "./train.ts";

/** The factors of one map at the start of training. */
export interface Factors {
  role: string;
  /** B or P, [out, rank] */
  left: Float32Array;
  /** Aᵀ or Q, [in, rank] */
  right: Float32Array;
}

/** An adaptation by low-rank factors; what it has become can be read. */
export interface LowRankAdaptation extends Adaptation, Disposable {
  /** The edit: one delta a map, pruned ranks left out. Waits once. */
  deltas(): Promise<WeightDelta[]>;
}

/** What AdaLoRA has beside LoRA, under peft's names. */
export interface AdaLoraOptions extends BudgetSchedule {
  lora_alpha: number;
  beta1: number;
  beta2: number;
  /** Weight of the orthogonality penalty. */
  orth_reg_weight: number;
  /** Updates in all: peft's total_step. */
  num_steps: number;
}

/**
 * The maps whose checkpoint name ends in one of `modules`, in the given layers (all where there are none).
 * @throws {InputError} for a layer or a module that the model does not have
 */
export function targetMaps(model: Model, modules: readonly string[], layers: readonly number[]): Weight[] {
  const all = [...model.weights.values()].filter(({ role }) => role.startsWith("layer."));
  const moduleOf = ({ name }: Weight) => name.replace(/\.weight$/, "").split(".").at(-1)!;
  const missing = modules.find((module) => !all.some((w) => moduleOf(w) === module));
  if (missing !== undefined) {
    const has = [...new Set(all.map(moduleOf))].join(", ");
    throw new InputError(`${model.name} has no module "${missing}" to adapt`, { hint: `It has ${has}` });
  }
  return all.filter((w) =>
    modules.includes(moduleOf(w)) &&
    (layers.length === 0 || layers.includes(Number(w.role.split(".")[1])))
  );
}

/** LoRA's start: A uniform within ±1/√in (PyTorch's Kaiming initialisation with a = √5), B zero. */
export function loraStart(maps: readonly Weight[], rank: number, seed: number): Factors[] {
  const random = seededRandom(seed);
  return maps.map(({ role, out, in: inner }) => ({
    role,
    left: new Float32Array(out * rank),
    right: Float32Array.from({ length: inner * rank }, () => (2 * random() - 1) / Math.sqrt(inner)),
  }));
}

/** AdaLoRA's start: P and Q normal with a deviation of 0.02. */
export function adaLoraStart(maps: readonly Weight[], rank: number, seed: number): Factors[] {
  const random = seededRandom(seed);
  const normal = () => 0.02 * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const normals = (n: number) => Float32Array.from({ length: n }, normal);
  return maps.map(({ role, out, in: inner }) => ({
    role,
    left: normals(out * rank),
    right: normals(inner * rank),
  }));
}

/** One map's factors on the device. */
interface Pair {
  role: string;
  /** [out, rank] */
  p: Tensor;
  /** [in, rank] */
  q: Tensor;
}

/** Everything on the device that a kind of adapter owns. */
class Adapters {
  readonly model: Model;
  readonly pairs: Pair[];
  #owned = new DisposableStack();

  constructor(model: Model, starts: readonly Factors[], rank: number) {
    this.model = model;
    this.pairs = starts.map(({ role, left, right }) => {
      const w = model.weights.get(role)!;
      return {
        role,
        p: this.make(`B of ${role}`, [w.out, rank], left),
        q: this.make(`A of ${role}`, [w.in, rank], right),
      };
    });
  }

  make(label: string, shape: number[], values?: Float32Array | Uint32Array): Tensor {
    const { gpu } = this.model;
    const options = { owner: "training" };
    const t = values
      ? fromHost(gpu, label, shape, values, options)
      : createTensor(gpu, label, shape, options);
    return this.#owned.adopt(t, () => freeTensor(gpu, t));
  }

  /** The model with one more overlay on each adapted map. */
  place(overlay: (pair: Pair, index: number) => Overlay): Model {
    const { model } = this;
    const weights = new Map(model.weights);
    this.pairs.forEach((pair, i) => {
      const w = weights.get(pair.role)!;
      weights.set(pair.role, { ...w, overlays: [...w.overlays, overlay(pair, i)] });
    });
    return Object.create(model, { weights: { value: weights } });
  }

  get start(): Adaptation["start"] {
    const layer = Math.min(...this.pairs.map(({ role }) => Number(role.split(".")[1])));
    const here = this.pairs.filter(({ role }) => role.startsWith(`layer.${layer}.`));
    return { at: here.every(({ role }) => role.endsWith(".mlp.down")) ? "key" : "block", layer };
  }

  get factors(): Tensor[] {
    return this.pairs.flatMap(({ p, q }) => [p, q]);
  }

  dispose(): void {
    this.#owned.dispose();
  }
}

/** LoRA from given factors; `alpha/rank` scales the product. */
export function lora(
  model: Model,
  starts: readonly Factors[],
  { rank, lora_alpha }: { rank: number; lora_alpha: number },
): LowRankAdaptation {
  const adapters = new Adapters(model, starts, rank);
  const factor = lora_alpha / rank;
  return {
    start: adapters.start,
    parameters: adapters.factors,
    place: (ctx) => adapters.place(({ p, q }) => ({ left: scale(ctx, p, factor), right: q })),
    async deltas() {
      const values = await readTensors(model.gpu, ...adapters.factors) as Float32Array[];
      return adapters.pairs.map(({ role }, i) => ({
        role,
        rank,
        left: values[2 * i].map((x) => x * factor),
        right: values[2 * i + 1],
      }));
    },
    [Symbol.dispose]: () => adapters.dispose(),
  };
}

/** AdaLoRA from given factors, singular values zero. */
export function adaLora(
  model: Model,
  starts: readonly Factors[],
  options: AdaLoraOptions,
): LowRankAdaptation {
  const { init_r: rank, lora_alpha, beta1, beta2, orth_reg_weight, num_steps } = options;
  const adapters = new Adapters(model, starts, rank);
  const { pairs } = adapters;
  const ranks = pairs.length * rank;
  const values = adapters.make("singular values", [ranks]);
  const state: AllocatorState = {
    sensitivity: new Map([values, ...adapters.factors].map((t) => {
      const make = (what: string) => adapters.make(`${what} sensitivity of ${t.label}`, [...t.shape]);
      return [t, { mean: make("mean"), spread: make("spread of") }];
    })),
    scores: adapters.make("scores", [ranks]),
    kept: adapters.make("kept ranks", [ranks], new Uint32Array(ranks).fill(1)),
    cuts: adapters.make("budget", [num_steps], budgetCuts(options, pairs.length, num_steps)),
  };
  const eye = new Float32Array(rank * rank);
  for (let i = 0; i < rank; i++) eye[i * rank + i] = -1;
  const minusIdentity = adapters.make("−I", [rank, rank], eye);
  const coefficient = adapters.make(
    "penalty weight",
    [1],
    Float32Array.of(orth_reg_weight / (2 * pairs.length)),
  );
  // peft divides by the rank plus 1e-5.
  const factor = lora_alpha / (rank + 1e-5);
  return {
    start: adapters.start,
    parameters: [values, ...adapters.factors],
    place: (ctx) =>
      adapters.place(({ p, q }, i) => ({
        left: scaleColumns(ctx, p, values, { first: i * rank, alpha: factor }),
        right: q,
      })),
    penalise(ctx, value) {
      const grams = adapters.factors.map((t) => gramPenalty(ctx, t, minusIdentity, coefficient, value));
      return (grad) =>
        adapters.factors.forEach((t, i) =>
          // d‖XᵀX − I‖/dX = 2 X G for symmetric G, the norm's gradient.
          matmul(ctx, "nn", t, grams[i], grad(t), { accumulate: true, alpha: 2 })
        );
    },
    settle: (ctx, clock, grad) => allocate(ctx, pairs, values, { state, clock, grad, beta1, beta2 }),
    async deltas() {
      const [lambda, ...factors] = await readTensors(
        model.gpu,
        values,
        ...adapters.factors,
      ) as Float32Array[];
      return pairs.map(({ role }, i) => {
        const mine = lambda.subarray(i * rank, (i + 1) * rank);
        const kept = [...mine.keys()].filter((j) => mine[j] !== 0);
        const columns = (x: Float32Array, by: (j: number) => number) =>
          Float32Array.from({ length: x.length / rank * kept.length }, (_, at) => {
            const j = kept[at % kept.length];
            return x[Math.floor(at / kept.length) * rank + j] * by(j);
          });
        return {
          role,
          rank: kept.length,
          left: columns(factors[2 * i], (j) => mine[j] * factor),
          right: columns(factors[2 * i + 1], () => 1),
        };
      }).filter(({ rank }) => rank > 0);
    },
    [Symbol.dispose]: () => adapters.dispose(),
  };
}

/** Adds c·‖XᵀX − I‖ to `value`; returns c times the norm's gradient to XᵀX, [rank, rank]. */
function gramPenalty(ctx: Ctx, x: Tensor, minusIdentity: Tensor, coefficient: Tensor, value: Tensor): Tensor {
  const rank = x.shape[1];
  const gram = temp(ctx, `gram of ${x.label}`, [rank, rank]);
  matmul(ctx, "tn", x, x, gram, { residual: minusIdentity });
  const grad = temp(ctx, `d gram of ${x.label}`, [1, rank * rank]);
  fill(ctx, grad, 0);
  normPenalty(ctx, { delta: reshape(gram, [1, rank * rank]), coefficient, loss: value, grad });
  return reshape(grad, [rank, rank]);
}
