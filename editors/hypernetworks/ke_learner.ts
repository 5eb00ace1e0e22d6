/**
 * KE's network in training (De Cao et al. 2021, sections 3.2 and 5; memory-and-meta guide sections 3.1 and 3.3): the
 * network descends cr + α (kl − m), the multiplier α ascends it and never falls below 0, both by centred RMSprop under
 * one schedule. After a validation whose edits nearly all succeed the margin m becomes tighter. As in `Learner`, a
 * value that is not finite closes a gate before anything learns from it.
 */
import { GpuError } from "../../engine/gpu/errors.ts";
import { type Model, weight } from "../../engine/models/model.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { addInto, addScaled, checkFinite, fill } from "../../engine/ops/elementwise.ts";
import { globalNorm } from "../../engine/ops/optim.ts";
import { rmsprop } from "../../engine/ops/rmsprop.ts";
import { smoothedEntropy } from "../../engine/ops/smoothed.ts";
import { createTensor, freeTensor, storageOf, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors, writeTensor } from "../../engine/tensor/transfer.ts";
import type { NamedNumbers } from "./file.ts";
import { recordObjective } from "./ke_objective.ts";
import {
  CAUSES,
  DivergedError,
  networkTensors,
  type Progress,
  readNumbers,
  type Trainee,
} from "./learner.ts";
import type { Hypernetwork, Numbers } from "./network.ts";
import { type EditGroup, recordBase } from "./step.ts";
import type { Quality } from "./validate.ts";

/** How to train. */
export interface ConstrainedOptions {
  /** Learning rates of the network and of α. */
  lr: number;
  lrAlpha: number;
  /** Steps over which both rise from nothing, and the step at which they are back there. */
  warmup: number;
  steps: number;
  /** ε of the label smoothing. */
  smoothing: number;
  /** Of kl, in nats a token. */
  margin: { start: number; floor: number };
}

/** The share of edited prompts and other wordings that must succeed for a tighter margin, and how much tighter. */
const SUCCESS = 0.9, TIGHTER = 0.8;

/** Something that RMSprop moves. */
interface Moved {
  name: string;
  tensor: Tensor;
  mean: Tensor;
  variance: Tensor;
  rate: number;
}

/** Owns the optimiser's state and α, not the network. */
export class ConstrainedLearner implements Trainee {
  readonly network: Hypernetwork;
  #model: Model;
  #options: ConstrainedOptions;
  #moved: Moved[];
  #alpha: Moved;
  #margin: number;
  /** 0, or 1 + 4·step + cause of the first value that is not finite. */
  #bad: Tensor;
  /** Sums since the last reading: cr less its least, kl, the gradient's norm. */
  #sums: Tensor[];
  #pending = 0;
  #owned = new DisposableStack();

  constructor(model: Model, network: Hypernetwork, options: ConstrainedOptions) {
    const { gpu } = model;
    this.#model = model;
    this.network = network;
    this.#options = options;
    this.#margin = Math.fround(options.margin.start);
    const keep = (t: Tensor) => this.#owned.adopt(t, (t) => freeTensor(gpu, t));
    const make = (label: string, shape: readonly number[], dtype: "f32" | "u32" = "f32") =>
      keep(createTensor(gpu, label, shape, { dtype, owner: "training" }));
    const moved = (name: string, tensor: Tensor, rate: number): Moved => ({
      ...{ name, tensor, rate },
      mean: make(`mean of ${name}`, tensor.shape),
      variance: make(`variance of ${name}`, tensor.shape),
    });
    this.#moved = network.parameters.map(({ name, tensor, rate }) => moved(name, tensor, rate));
    this.#alpha = moved("alpha", keep(fromHost(gpu, "alpha", [1], [1], { owner: "training" })), 1);
    this.#bad = make("bad", [1], "u32");
    this.#sums = ["cr", "kl", "norm"].map((label) => make(label, [1]));
  }

  step(groups: readonly EditGroup[], index: number): void {
    const { gpu } = this.#model;
    const { lr, lrAlpha, smoothing } = this.#options;
    using owned = new DisposableStack();
    const tape = new Tape();
    const r = gpu.recorder(), ctx: Ctx = { gpu, r, tape }, plain: Ctx = { gpu, r };
    const check = (t: Tensor, cause: number) => checkFinite(plain, t, this.#bad, 1 + 4 * index + cause);
    for (const { tensor } of this.#moved) tape.require(tensor);
    const base = recordBase(plain, this.#model, this.network, groups, owned);
    check(base.editLosses, 0);
    for (const { u, delta } of base.gradients.values()) [u, delta].forEach((t) => check(t, 0));
    r.gated(storageOf(this.#bad), () => {
      const alpha = this.#alpha.tensor;
      const { cr, kl } = recordObjective(
        ...[ctx, this.#model, this.network, groups, base] as const,
        { alpha, smoothing },
        owned,
      );
      [cr, kl].forEach((t) => check(t, 1));
      tape.backward();
      const grads = this.#moved.flatMap((of) => {
        const grad = tape.grad(of.tensor);
        return grad ? [{ ...of, grad }] : [];
      });
      const norm = temp(plain, "norm", [1]);
      globalNorm(plain, grads.map(({ grad }) => grad), norm);
      check(norm, 2);
      [cr, kl, norm].forEach((t, i) => addInto(plain, t, this.#sums[i]));
      // α ascends: what it descends is m − kl.
      const against = temp(plain, "margin left", [1]);
      fill(plain, against, this.#margin);
      addScaled(plain, kl, against, -1, true);
      const at = this.#schedule(index);
      const move = (
        { tensor: param, mean, variance, rate }: Moved,
        grad: Tensor,
        lr: number,
        floor?: number,
      ) => rmsprop(plain, { param, grad, mean, variance, lr: lr * at * rate, floor });
      for (const { grad, ...of } of grads) move(of, grad, lr);
      move(this.#alpha, against, lrAlpha, 0);
    });
    using plan = r.finish("training step");
    plan.run();
    this.#pending++;
  }

  /** Both rates' factor in a step: up from 0 to 1 and down to 0, in straight lines. */
  #schedule(index: number): number {
    const { warmup, steps } = this.#options;
    if (index < warmup) return index / warmup;
    return Math.max(0, (steps - index) / Math.max(1, steps - warmup));
  }

  validated({ edit, paraphrase }: Quality): void {
    if ((edit + paraphrase) / 2 <= SUCCESS) return;
    this.#margin = Math.fround(Math.max(TIGHTER * this.#margin, this.#options.margin.floor));
  }

  async progress(): Promise<Progress> {
    const { gpu } = this.#model;
    const [[cr], [kl], [norm], [alpha], [bad]] = await readTensors(
      gpu,
      ...[...this.#sums, this.#alpha.tensor, this.#bad],
    );
    if (bad > 0) throw new DivergedError(Math.floor((bad - 1) / 4) + 1, CAUSES[(bad - 1) % 4]);
    const steps = this.#pending, mean = (x: number) => x / Math.max(1, steps);
    this.#pending = 0;
    for (const sum of this.#sums) writeTensor(gpu, sum, [0]);
    const least = smoothedEntropy(weight(this.#model, "head").out, this.#options.smoothing);
    const edit = mean(cr) + least;
    return { steps, edit, loc: mean(kl), norm: mean(norm), alpha, margin: this.#margin };
  }

  async state(): Promise<Map<string, NamedNumbers>> {
    const numbers = await readNumbers(this.#model, this.#state());
    return numbers.set("margin", { shape: [1], values: Float32Array.of(this.#margin) });
  }

  restore(numbers: Numbers): void {
    const of = (name: string) => {
      const values = numbers.get(name);
      if (!values) throw new GpuError(`The state of training lacks ${name}`);
      return values;
    };
    for (const [name, tensor] of this.#state()) writeTensor(this.#model.gpu, tensor, of(name));
    this.#margin = of("margin")[0];
  }

  #state(): Map<string, Tensor> {
    return new Map([
      ...networkTensors(this.network),
      ["alpha", this.#alpha.tensor],
      ...[...this.#moved, this.#alpha].flatMap(({ name, mean, variance }): [string, Tensor][] => [
        [`mean.${name}`, mean],
        [`variance.${name}`, variance],
      ]),
    ]);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
