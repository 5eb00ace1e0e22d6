/**
 * Trains SERAC's counterfactual model as an adapter on the base (guide sections 6.4 and 15): the token-mean NLL of
 * the answer after edit and test prompt, the edit being the right one, as in the original's supervised training.
 * The base's weights stay as they are; gradients flow to low-rank factors only.
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows, selectRows } from "../../engine/models/rows.ts";
import { type Ctx, Tape } from "../../engine/ops/context.ts";
import { groupMean } from "../../engine/ops/rows.ts";
import { vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../engine/tensor/transfer.ts";
import type { WeightDelta } from "../edit.ts";
import { lora, loraStart, type LowRankAdaptation } from "../finetune/lora.ts";
import { optimiser } from "./adam.ts";
import type { Copy } from "./data.ts";

/** How to train. */
export interface AdapterTraining {
  rank: number;
  steps: number;
  /** Examples a step. */
  batch: number;
  /** Adam's: reached in 20 steps, then falling to a twentieth. */
  lr: number;
  /** Steps between two validations. */
  val_interval: number;
  /** Validations without a better one after which training ends. */
  patience: number;
  seed: number;
  onProgress?: (done: number, total: number, loss: number) => void;
}

/** How training went: the loss of every look, and of every validation. */
export interface Course {
  losses: { step: number; loss: number }[];
  validations: { step: number; loss: number }[];
  /** The step whose parameters were kept. */
  best: number;
}

const WARM_UP = 20, LEAST = 0.05;
/** The norm to which gradients are clipped, and LoRA's α over its rank. */
export const CLIP = 1, FACTOR = 2;
/** Steps between two looks at the loss. */
const LOOK = 10;

/** What the rate of a step is multiplied by. */
export function schedule(done: number, steps: number): number {
  return Math.min(1, (done + 1) / WARM_UP) * Math.max(LEAST, 1 - done / steps);
}

/**
 * Trains the adapter on all maps of all blocks, and keeps the one that was best on the held examples.
 * @throws {GpuError} when the loss is not finite, with the step
 */
export async function trainAdapter(
  model: Model,
  examples: () => Copy,
  held: readonly Copy[],
  options: AdapterTraining,
): Promise<{ adapter: WeightDelta[]; course: Course }> {
  const { gpu } = model;
  const { rank, steps, batch, lr, val_interval, patience, seed, onProgress } = options;
  const maps = [...model.weights.values()].filter(({ role }) => role.startsWith("layer."));
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const adaptation = owned.use(lora(model, loraStart(maps, rank, seed), { rank, lora_alpha: FACTOR * rank }));
  using adam = optimiser(gpu, adaptation.parameters);
  const total = own(createTensor(gpu, "loss", [1, 1]));
  const course: Course = { losses: [], validations: [], best: 0 };
  let adapter = await adaptation.deltas(), least = Infinity;
  const due = (every: number, done: number) => done % every === 0 || done === steps;
  for (let done = 0; done < steps;) {
    const rate = lr * schedule(done, steps);
    using batchRows = new Batch(model, Array.from({ length: batch }, examples));
    // Every batch has rows of its own, so every step is recorded once and run once.
    const tape = new Tape();
    const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
    adam.require(ctx);
    batchRows.loss(ctx, adaptation.place(ctx), total);
    tape.backward();
    adam.step(ctx, rate, CLIP);
    using plan = ctx.r.finish("adapter step");
    plan.run();
    done++;
    if (!due(LOOK, done) && !due(val_interval, done)) continue;
    const [loss] = await readF32(gpu, total);
    if (!Number.isFinite(loss)) {
      throw new GpuError(
        `The loss of the counterfactual model is not finite at step ${done}`,
        `Lower lr, which is ${lr}`,
      );
    }
    course.losses.push({ step: done, loss });
    onProgress?.(done, steps, loss);
    if (!due(val_interval, done)) continue;
    const heldLoss = await lossOf(model, adaptation, held, batch);
    course.validations.push({ step: done, loss: heldLoss });
    if (heldLoss < least) [least, course.best, adapter] = [heldLoss, done, await adaptation.deltas()];
    else if (done - course.best >= patience * val_interval) break;
  }
  return { adapter, course };
}

/** The token-mean NLL of examples, without a step. */
async function lossOf(
  model: Model,
  adaptation: LowRankAdaptation,
  examples: readonly Copy[],
  batch: number,
): Promise<number> {
  const { gpu } = model;
  let sum = 0, tokens = 0;
  for (let first = 0; first < examples.length; first += batch) {
    const some = examples.slice(first, first + batch);
    const loss = createTensor(gpu, "validation loss", [1, 1]);
    using _ = { [Symbol.dispose]: () => freeTensor(gpu, loss) };
    using rows = new Batch(model, some);
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    rows.loss(ctx, adaptation.place(ctx), loss);
    using plan = ctx.r.finish("adapter validation");
    plan.run();
    const count = some.reduce((n, { target }) => n + target.length, 0);
    sum += (await readF32(gpu, loss))[0] * count;
    tokens += count;
  }
  return sum / tokens;
}

/** Examples as rows. */
class Batch implements Disposable {
  #model: Model;
  #examples: readonly Copy[];
  #owned = new DisposableStack();

  constructor(model: Model, examples: readonly Copy[]) {
    this.#model = model;
    this.#examples = examples;
  }

  /** Records the token-mean NLL of the answers; its value goes to `into`. */
  loss(ctx: Ctx, placed: Model, into: Tensor): void {
    const { gpu, dims } = this.#model;
    const own = (t: Tensor) => this.#owned.adopt(t, () => freeTensor(gpu, t));
    const sequences = this.#examples.map(({ front, prompt, target }) => (
      { ids: [...front, ...prompt, ...target.slice(0, -1)] }
    ));
    const packing = { windows: dims.windows };
    const rows = this.#owned.use(packRows(gpu, sequences, packing));
    const chosen = this.#examples.flatMap(({ front, prompt, target }, i) =>
      target.map((_, t) => rows.rowOf(i, front.length + prompt.length - 1 + t))
    );
    const select = this.#owned.use(selectRows(gpu, rows, chosen, sequences, packing));
    const targets = this.#examples.flatMap(({ target }) => target);
    const n = targets.length;
    const h = finalNorm(ctx, placed, forward(ctx, placed, rows, { select }));
    const loss = vocabLoss(ctx, h, weight(placed, "head"), {
      targets: own(fromHost(gpu, "targets", [n], Uint32Array.from(targets))),
      weights: own(fromHost(gpu, "loss weights", [n], new Float32Array(n).fill(1 / n))),
    });
    const group = own(fromHost(gpu, "one group", [n], new Uint32Array(n)));
    const ones = own(fromHost(gpu, "ones", [n], new Float32Array(n).fill(1)));
    groupMean(ctx, reshape(loss, [n, 1]), group, ones, into);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
