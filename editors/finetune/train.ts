/**
 * Fine-tuning on edit requests: one recorded step replayed, everything about it on the device. The loss is the
 * mean over examples of the mean over the target's tokens of
 *
 *   target_new    −log p(target_t | prompt, target_<t)   teacher-forced: what fine-tuning means
 *   prompt_last   −log p(target_t | prompt)              every token at the prompt's end: what the ROME authors'
 *                                                        baseline computes, never below ln T for T distinct tokens
 *
 * Below the lowest trained weight nothing changes from step to step: its input is computed once, and forward
 * and backward run from there (guide section 14). Early stopping as in kmeng01/rome, baselines/ft.
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows, type Rows, type Selection, selectRows, type Sequence } from "../../engine/models/rows.ts";
import type { Hook, Site } from "../../engine/models/sites.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { add, addScaled, copy, fill } from "../../engine/ops/elementwise.ts";
import { epochRule, type EpochState } from "../../engine/ops/epoch_rule.ts";
import { linear } from "../../engine/ops/linear.ts";
import { adam, advance } from "../../engine/ops/optim.ts";
import { addToRows, capture, groupMean } from "../../engine/ops/rows.ts";
import { vocabLoss } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, reshape, storageOf, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";

/** One edit as token ids. */
export interface Example {
  prompt: readonly number[];
  target: readonly number[];
}

export type Objective = "prompt_last" | "target_new";

/** How to train, under the names that the field's files use. */
export interface TrainOptions {
  objective_optimization: Objective;
  /** Updates a batch at most. */
  num_steps: number;
  /** Adam's learning rate, or that of the adaptation's own optimiser. */
  lr: number;
  /** L2: the gradient gets weight_decay·θ, as torch.optim.Adam does it. */
  weight_decay: number;
  /** Examples an update. */
  batch_size: number;
  /** A mean loss below which there is no update, and below which training ends; 0 trains to the last step. */
  threshold: number;
}

/** Where the trained part of the model begins; what lies before it is computed once. */
export type Start =
  | { at: "ids" }
  | { at: "block"; layer: number }
  /** Of the layer only the MLP's output projection is trained. */
  | { at: "key"; layer: number };

/**
 * What updates a parameter: makes its state (f32, zero at the start) and returns what records a step. The clock u32
 * [1] is 1 in the first.
 */
export type Optimiser = (
  param: Tensor,
  lr: number,
  zeros: (label: string, shape: number[]) => Tensor,
) => (ctx: Ctx, grad: Tensor, clock: Tensor) => void;

/** A way to change a model by training: which numbers are trained and how the model uses them. */
export interface Adaptation {
  readonly start: Start;
  /** Trained in place, f32. */
  readonly parameters: readonly Tensor[];
  /** Default: Adam. */
  readonly optimiser?: Optimiser;
  /** The model with the parameters in it, for one recorded step. */
  place(ctx: Ctx): Model;
  /** Adds a term to the loss: its value to `value` f32 [1]; returns what adds its gradients, to run later. */
  penalise?(ctx: Ctx, value: Tensor): (grad: (param: Tensor) => Tensor) => void;
  /** Sees the loss of each example, divided by their number, [examples], before each update and after the last. */
  watch?(ctx: Ctx, losses: Tensor): void;
  /** After each update; the clock u32 [1] is 1 in the first. */
  settle?(ctx: Ctx, clock: Tensor, grad: (param: Tensor) => Tensor | undefined): void;
}

/** How training went. */
export interface Training {
  /** Updates made by each batch. */
  steps: number;
  /** Loss of every example before each update and after the last one, [steps + 1][examples]. */
  losses: number[][];
  /** The penalty at the same moments. */
  penalties: number[];
}

/**
 * Trains the parameters of an adaptation on the examples. Waits for the GPU once.
 * @throws {GpuError} when a loss is not finite, naming edit and step
 */
export async function train(
  model: Model,
  examples: readonly Example[],
  adaptation: Adaptation,
  options: TrainOptions,
): Promise<Training> {
  const { gpu } = model;
  using owned = new DisposableStack();
  const own = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const zeros = (label: string, shape: number[], dtype: "f32" | "u32" = "f32") =>
    own(createTensor(gpu, label, shape, { dtype }));
  const state: EpochState = {
    history: zeros("loss history", [options.num_steps + 1, examples.length + 1]),
    epoch: zeros("epoch", [1], "u32"),
    total: zeros("epoch loss", [1]),
    bad: zeros("bad loss", [2], "u32"),
    skip: zeros("skip", [1], "u32"),
    gate: zeros("gate", [1], "u32"),
  };
  const clock = zeros("adam clock", [1], "u32");
  const { optimiser = adamOptimiser } = adaptation;
  const trained = adaptation.parameters.map((param) => ({
    param,
    update: optimiser(param, options.lr, zeros),
  }));
  const plans = [];
  for (let first = 0; first < examples.length; first += options.batch_size) {
    const batch = owned.use(
      new Batch(model, examples.slice(first, first + options.batch_size), adaptation, options),
    );
    const closes = first + options.batch_size >= examples.length;
    plans.push(owned.use(batch.record({ state, clock, trained }, first, closes)));
  }
  for (let epoch = 0; epoch <= options.num_steps; epoch++) for (const plan of plans) plan.run();
  const [history, epochs, bad] = await readTensors(gpu, state.history, state.epoch, state.bad);
  if (bad[0] > 0) {
    throw new GpuError(
      `The loss of edit ${bad[1]} is not finite at step ${bad[0] - 1}`,
      `Lower the learning rate lr, which is ${options.lr}`,
    );
  }
  const width = examples.length + 1;
  const rows = Array.from(
    { length: epochs[0] },
    (_, e) => [...(history as Float32Array).subarray(e * width, (e + 1) * width)],
  );
  return {
    steps: epochs[0] - 1,
    losses: rows.map((row) => row.slice(0, -1)),
    penalties: rows.map((row) => row[width - 1]),
  };
}

const adamOptimiser: Optimiser = (param, lr, zeros) => {
  const m = zeros(`m of ${param.label}`, [...param.shape]);
  const v = zeros(`v of ${param.label}`, [...param.shape]);
  return (ctx, grad, step) => adam(ctx, { param, grad, m, v, step, lr });
};

/** What all batches of a training share. */
interface Shared {
  state: EpochState;
  clock: Tensor;
  trained: { param: Tensor; update: ReturnType<Optimiser> }[];
}

/** One batch of examples: its rows, and what of the model is computed once for them. */
class Batch implements Disposable {
  #model: Model;
  #examples: readonly Example[];
  #adaptation: Adaptation;
  #options: TrainOptions;
  #owned = new DisposableStack();
  #rows: Rows;
  #select: Selection;

  constructor(model: Model, examples: readonly Example[], adaptation: Adaptation, options: TrainOptions) {
    this.#model = model;
    this.#examples = examples;
    this.#adaptation = adaptation;
    this.#options = options;
    const sequences: Sequence[] = examples.map(({ prompt, target }) => ({
      ids: this.#last ? [...prompt] : [...prompt, ...target.slice(0, -1)],
      prompt: prompt.length,
    }));
    const packing = { windows: model.dims.windows };
    this.#rows = this.#owned.use(packRows(model.gpu, sequences, packing));
    const lossRows = examples.flatMap(({ prompt, target }, i) =>
      (this.#last ? [0] : [...target.keys()]).map((t) => this.#rows.rowOf(i, prompt.length - 1 + t))
    );
    this.#select = this.#owned.use(selectRows(model.gpu, this.#rows, lossRows, sequences, packing));
  }

  get #last(): boolean {
    return this.#options.objective_optimization === "prompt_last";
  }

  #own(t: Tensor): Tensor {
    return this.#owned.adopt(t, () => freeTensor(this.#model.gpu, t));
  }

  #u32(label: string, values: readonly number[]): Tensor {
    return this.#own(fromHost(this.#model.gpu, label, [values.length], Uint32Array.from(values)));
  }

  #f32(label: string, values: readonly number[]): Tensor {
    return this.#own(fromHost(this.#model.gpu, label, [values.length], Float32Array.from(values)));
  }

  /** Records one step: losses, the rule, and under its gate backward and update. */
  record({ state, clock, trained }: Shared, first: number, closes: boolean) {
    const { gpu } = this.#model;
    const { weight_decay, threshold } = this.#options;
    const enter = this.#prepare();
    const penalty = this.#f32("penalty", [0]);
    const tape = new Tape();
    const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
    ctx.r.gated(storageOf(state.gate), () => {
      for (const { param } of trained) {
        // A gradient in several buffers cannot be a temporary.
        const into = param.shards.length > 1
          ? this.#own(createTensor(gpu, `d ${param.label}`, param.shape))
          : undefined;
        if (into) fill(ctx, into, 0);
        tape.require(param, into);
      }
      fill(ctx, penalty, 0);
      const regularise = this.#adaptation.penalise?.(ctx, penalty);
      const placed = this.#adaptation.place(ctx);
      const terms = this.#losses(ctx, placed, enter(ctx, placed));
      this.#adaptation.watch?.(ctx, terms);
      epochRule(ctx, state, { terms, penalty, first, closes }, threshold);
      ctx.r.gated(storageOf(state.skip), () => {
        tape.backward();
        regularise?.((param) => tape.grad(param)!);
        advance(ctx, clock);
        for (const { param, update } of trained) {
          const grad = tape.grad(param);
          if (!grad) continue;
          if (weight_decay > 0) addScaled(ctx, param, grad, weight_decay, true);
          update(ctx, grad, clock);
        }
        this.#adaptation.settle?.(ctx, clock, (param) => tape.grad(param));
      });
    });
    return ctx.r.finish("fine-tuning step");
  }

  /** Mean loss of each example, divided by their number, [examples]. */
  #losses(ctx: Ctx, placed: Model, h: Tensor): Tensor {
    const examples = this.#examples;
    const n = examples.length;
    const of = examples.flatMap(({ target }, i) => target.map((id) => ({ i, id, share: 1 / target.length })));
    let final = finalNorm(ctx, placed, h);
    if (this.#last && of.length > n) final = this.#repeat(ctx, final, of.map(({ i }) => i));
    const head = weight(placed, "head");
    const loss = vocabLoss(ctx, final, head, {
      targets: this.#u32("targets", of.map(({ id }) => id)),
      weights: this.#f32("loss weights", of.map(({ share }) => share / n)),
      // The gradient of the head needs all of the vocabulary at once.
      chunk: ctx.tape!.needs(head.matrix) ? head.out : undefined,
    });
    const terms = temp(ctx, "loss terms", [n]);
    groupMean(
      ctx,
      reshape(loss, [of.length, 1]),
      this.#u32("loss groups", of.map(({ i }) => i)),
      this.#f32("ones", of.map(() => 1)),
      reshape(terms, [n, 1]),
    );
    return terms;
  }

  /** Row `from[i]` of h in row i, with the gradient summed back. */
  #repeat(ctx: Ctx, h: Tensor, from: number[]): Tensor {
    const nothing = this.#own(createTensor(ctx.gpu, "nothing", [from.length, h.shape[1]]));
    return addToRows(ctx, nothing, this.#u32("rows", [...from.keys()]), this.#u32("row sources", from), h);
  }

  /** Computes what no step changes; returns what records the rest, up to the loss rows of the stream. */
  #prepare(): (ctx: Ctx, placed: Model) => Tensor {
    const start = this.#start();
    const rows = this.#rows, select = this.#select;
    if (start.at === "ids") return (ctx, placed) => forward(ctx, placed, rows, { select });
    const { gpu, dims } = this.#model;
    const { layer } = start;
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const keep = (label: string, count: number, width: number) =>
      this.#own(createTensor(gpu, label, [count, width]));
    if (start.at === "block") {
      const input = keep("block input", rows.count, dims.width);
      copy(ctx, forward(ctx, this.#model, rows, { to: layer }), input);
      using plan = ctx.r.finish("prepare fine-tuning");
      plan.run();
      return (ctx, placed) => forward(ctx, placed, rows, { from: layer, input, select });
    }
    // Of the last layer only the loss rows matter.
    const last = layer === dims.layers - 1;
    const index = last ? select.index : undefined;
    const count = last ? select.count : rows.count;
    const key = keep("keys", count, dims.inner), mid = keep("stream before the MLP", count, dims.width);
    let entering: Tensor | undefined;
    const hooks = new Map<Site, Hook>([
      [`layer.${layer}.in`, (_, value) => entering = value],
      [`layer.${layer}.attn.out`, (ctx, value) => {
        capture(ctx, add(ctx, entering!, value), index, mid);
        return value;
      }],
      [`layer.${layer}.mlp.key`, (ctx, value) => (capture(ctx, value, index, key), value)],
    ]);
    forward(ctx, this.#model, rows, { to: layer + 1, hooks });
    using plan = ctx.r.finish("prepare fine-tuning");
    plan.run();
    return (ctx, placed) => {
      const h = linear(ctx, key, weight(placed, `layer.${layer}.mlp.down`), { residual: mid });
      return last ? h : forward(ctx, placed, rows, { from: layer + 1, input: h, select });
    };
  }

  /** Where it begins: what stands beside a layer's maps must see the whole layer. */
  #start(): Start {
    const { start } = this.#adaptation;
    if (start.at !== "key") return start;
    const { layer } = start;
    const beside = this.#model.parts.some(({ at }) =>
      [...at.keys()].some((role) => role.startsWith(`layer.${layer}.`))
    );
    return beside ? { at: "block", layer } : start;
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]();
  }
}
