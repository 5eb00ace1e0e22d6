/**
 * Trains SERAC's counterfactual model as an adapter on the base (guide sections 6.4 and 15): the token-mean NLL of
 * the answer after edit and test prompt, the edit being the right one, as in the original's supervised training.
 * The base's weights stay as they are; gradients flow to low-rank factors only.
 */
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
import { type Course, follow, type Schedule } from "./course.ts";
import type { Copy } from "./data.ts";

/** How to train. */
export interface AdapterTraining extends Omit<Schedule, "onBest"> {
  rank: number;
  /** Examples a step. */
  batch: number;
  /** Adam's: reached in 20 steps, then falling to a twentieth. */
  lr: number;
  seed: number;
  /** Called with every adapter that is the best so far. */
  onBest?: (adapter: WeightDelta[], course: Course) => Promise<void>;
}

const WARM_UP = 20, LEAST = 0.05;
/** The norm to which gradients are clipped, and LoRA's α over its rank. */
export const CLIP = 1, FACTOR = 2;

/** What the rate of a step is multiplied by. */
export function schedule(done: number, steps: number): number {
  return Math.min(1, (done + 1) / WARM_UP) * Math.max(LEAST, 1 - done / steps);
}

/**
 * Trains the adapter on all maps of all blocks, and keeps the one that was best on the held examples.
 * @param examples the same ones in every session: those that an earlier one learnt from are drawn and left out
 * @throws {PartDivergedError} when a value is not finite
 */
export async function trainAdapter(
  model: Model,
  examples: () => Copy,
  held: readonly Copy[],
  options: AdapterTraining,
): Promise<{ adapter: WeightDelta[]; course: Course }> {
  const { gpu } = model;
  const { rank, steps, batch, lr, seed, reached, onBest } = options;
  const maps = [...model.weights.values()].filter(({ role }) => role.startsWith("layer."));
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const adaptation = owned.use(lora(model, loraStart(maps, rank, seed), { rank, lora_alpha: FACTOR * rank }));
  const adam = owned.use(optimiser(gpu, adaptation.parameters));
  const total = own(createTensor(gpu, "loss", [1, 1]));
  for (let seen = 0; seen < (reached?.step ?? 0) * batch; seen++) examples();
  const course = await follow(gpu, {
    name: "counterfactual model",
    optimiser: adam,
    loss: total,
    step(index) {
      using batchRows = new Batch(model, Array.from({ length: batch }, examples));
      // Every batch has rows of its own, so every step is recorded once and run once.
      const tape = new Tape();
      const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
      adam.require(ctx);
      batchRows.loss(ctx, adaptation.place(ctx), total);
      tape.backward();
      adam.step(ctx, total, lr * schedule(index, steps), CLIP);
      using plan = ctx.r.finish("adapter step");
      plan.run();
    },
    held: () => lossOf(model, adaptation, held, batch),
  }, { ...options, onBest: async (course) => await onBest?.(await adaptation.deltas(), course) });
  return { adapter: await adaptation.deltas(), course };
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
