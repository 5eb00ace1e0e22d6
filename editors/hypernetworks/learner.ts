/**
 * A network in training: Adam on what a step's losses say, gradients clipped together. All of its state is on the
 * device and can be read and given back, so that training goes on after an interruption with the same bits. A value
 * that is not finite closes a gate before anything learns from it: numbers stay as the last good step left them.
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import type { Model } from "../../engine/models/model.ts";
import { type Ctx, Tape } from "../../engine/ops/context.ts";
import { addInto, checkFinite } from "../../engine/ops/elementwise.ts";
import { adam, advance, clipByGlobalNorm } from "../../engine/ops/optim.ts";
import { createTensor, freeTensor, storageOf, type Tensor } from "../../engine/tensor/tensor.ts";
import { readTensors, writeTensor } from "../../engine/tensor/transfer.ts";
import type { NamedNumbers } from "./file.ts";
import type { Hypernetwork, Numbers } from "./network.ts";
import { type EditGroup, type LossWeights, recordBase, recordLosses } from "./step.ts";
import type { Quality } from "./validate.ts";

/** How to train. */
export interface LearnOptions extends LossWeights {
  /** Adam's learning rate. */
  lr: number;
  /** Steps over which it falls to nothing; without it, it stays. */
  decay?: number;
  /** The joint norm of all gradients at most. */
  clip: number;
}

/** Means since they were last read. */
export interface Progress {
  steps: number;
  /** Weighted losses. */
  edit: number;
  loc: number;
  /** Of the gradient before clipping. */
  norm: number;
  /** Of a constrained training: the multiplier, and the bound, as the last step left them. */
  alpha?: number;
  margin?: number;
}

/** What may be not finite, in the order in which a step meets it. */
export const CAUSES = ["the edit's own gradients are", "a loss is", "the gradient of the network is"];

/** A training that met a value that is not finite. */
export class DivergedError extends GpuError {
  /** @param step counted from 1; @param why "a loss is"; @param kept what is left of the training, a clause */
  constructor(readonly step: number, readonly why: string, kept?: string) {
    super(
      `Training stopped at step ${step}: ${why} not finite${kept ? `; ${kept}` : ""}`,
      "Lower the learning rate lr, or where there is a cloc, the weight of what must stay, raise that",
    );
  }
}

/** What a training harness needs of a network in training. */
export interface Trainee extends Disposable {
  readonly network: Hypernetwork;
  /** Makes one step, which is the `index`th, on groups of edits. Does not wait. */
  step(groups: readonly EditGroup[], index: number): void;
  /** Waits, and reads how it went since the last reading. @throws {DivergedError} naming step and cause */
  progress(): Promise<Progress>;
  /** Hears of a validation. */
  validated?(quality: Quality): void;
  /** Everything that training goes on from: parameters, buffers, the optimiser's state. */
  state(): Promise<Map<string, NamedNumbers>>;
  /** Takes a state back. */
  restore(numbers: Numbers): void;
}

/** Owns the optimiser's state, not the network. */
export class Learner implements Trainee {
  readonly network: Hypernetwork;
  #model: Model;
  #options: LearnOptions;
  #moments: { name: string; tensor: Tensor; m: Tensor; v: Tensor; rate: number }[];
  #clock: Tensor;
  /** 0, or 1 + 4·step + cause of the first value that is not finite. */
  #bad: Tensor;
  /** Sums since the last reading: edit loss, loc loss; norm. */
  #terms: Tensor;
  #norm: Tensor;
  #pending = 0;
  #owned = new DisposableStack();

  constructor(model: Model, network: Hypernetwork, options: LearnOptions) {
    this.#model = model;
    this.network = network;
    this.#options = options;
    const make = (label: string, shape: readonly number[], dtype: "f32" | "u32" = "f32") =>
      this.#owned.adopt(
        createTensor(model.gpu, label, shape, { dtype, owner: "training" }),
        (t) => freeTensor(model.gpu, t),
      );
    this.#moments = network.parameters.map(({ name, tensor, rate }) => ({
      ...{ name, tensor, rate },
      m: make(`m of ${name}`, tensor.shape),
      v: make(`v of ${name}`, tensor.shape),
    }));
    this.#clock = make("clock", [1], "u32");
    this.#bad = make("bad", [1], "u32");
    this.#terms = make("losses", [2]);
    this.#norm = make("norms", [1]);
  }

  step(groups: readonly EditGroup[], index: number): void {
    const { gpu } = this.#model;
    const { lr, decay = Infinity, clip } = this.#options;
    using owned = new DisposableStack();
    const tape = new Tape();
    const r = gpu.recorder(), ctx: Ctx = { gpu, r, tape }, plain: Ctx = { gpu, r };
    const code = (cause: number) => 1 + 4 * index + cause;
    for (const { tensor } of this.#moments) tape.require(tensor);
    const base = recordBase(plain, this.#model, this.network, groups, owned);
    checkFinite(plain, base.editLosses, this.#bad, code(0));
    for (const { u, delta } of base.gradients.values()) {
      checkFinite(plain, u, this.#bad, code(0));
      checkFinite(plain, delta, this.#bad, code(0));
    }
    r.gated(storageOf(this.#bad), () => {
      const { terms } = recordLosses(ctx, this.#model, this.network, groups, base, this.#options, {
        ...{ learn: true, owned },
      });
      checkFinite(plain, terms, this.#bad, code(1));
      addInto(plain, terms, this.#terms);
      tape.backward();
      const grads = this.#moments.flatMap((of) => {
        const grad = tape.grad(of.tensor);
        return grad ? [{ ...of, grad }] : [];
      });
      const norm = clipByGlobalNorm(plain, grads.map(({ grad }) => grad), clip);
      checkFinite(plain, norm, this.#bad, code(2));
      addInto(plain, norm, this.#norm);
      advance(plain, this.#clock);
      for (const { tensor: param, grad, m, v, rate } of grads) {
        adam(plain, { param, grad, m, v, step: this.#clock, lr: lr * rate * Math.max(0, 1 - index / decay) });
      }
    });
    using plan = r.finish("training step");
    plan.run();
    this.#pending++;
  }

  async progress(): Promise<Progress> {
    const { gpu } = this.#model;
    const [terms, norm, [bad]] = await readTensors(gpu, this.#terms, this.#norm, this.#bad);
    if (bad > 0) throw new DivergedError(Math.floor((bad - 1) / 4) + 1, CAUSES[(bad - 1) % 4]);
    const steps = this.#pending;
    this.#pending = 0;
    writeTensor(gpu, this.#terms, [0, 0]);
    writeTensor(gpu, this.#norm, [0]);
    const mean = (x: number) => x / Math.max(1, steps);
    return { steps, edit: mean(terms[0]), loc: mean(terms[1]), norm: mean(norm[0]) };
  }

  state(): Promise<Map<string, NamedNumbers>> {
    return readNumbers(this.#model, this.#state());
  }

  restore(numbers: Numbers): void {
    for (const [name, tensor] of this.#state()) {
      const values = numbers.get(name);
      if (!values) throw new GpuError(`The state of training lacks ${name}`);
      writeTensor(this.#model.gpu, tensor, values);
    }
  }

  #state(): Map<string, Tensor> {
    return new Map([
      ...networkTensors(this.network),
      ...this.#moments.flatMap(({ name, m, v }): [string, Tensor][] => [[`m.${name}`, m], [`v.${name}`, v]]),
      ["clock", this.#clock],
    ]);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Parameters and buffers by name: what an editor's file holds. */
export function networkTensors({ parameters, buffers }: Hypernetwork): Map<string, Tensor> {
  return new Map([...parameters.map(({ name, tensor }): [string, Tensor] => [name, tensor]), ...buffers]);
}

/** Reads tensors by name. Waits once. */
export async function readNumbers(
  { gpu }: Pick<Model, "gpu">,
  tensors: ReadonlyMap<string, Tensor>,
): Promise<Map<string, NamedNumbers>> {
  const values = await readTensors(gpu, ...tensors.values());
  return new Map(
    [...tensors].map((
      [name, { shape }],
      i,
    ) => [name, { shape, values: values[i] as Float32Array | Uint32Array }]),
  );
}
