/** The training of T-Patcher's patches: one recorded step, replayed between looks at whether the edit took. */
import { GpuError } from "../../engine/gpu/errors.ts";
import type { Plan } from "../../engine/gpu/plan.ts";
import type { Model } from "../../engine/models/model.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { addScaled } from "../../engine/ops/elementwise.ts";
import { epochRule, type EpochState } from "../../engine/ops/epoch_rule.ts";
import { adam, advance, clipByGlobalNorm } from "../../engine/ops/optim.ts";
import { scatterRows } from "../../engine/ops/rows.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { Example } from "../finetune/train.ts";
import type { Queries, TPatcherHparams } from "../t_patcher.ts";
import { losses, type Numbers } from "./losses.ts";
import type { Read } from "./mistakes.ts";
import { joinRows, type Trained } from "./patches.ts";

/** l_e, l_a and λ·l_m. */
const TERMS = 3;
/** A validation loss on the memory that falls by less ends training. */
const MEMORY_GAIN = 0.001;
/** The plateau of the rate: relative. */
const PLATEAU = 0.05;
/** Of the first rate: below it patches no longer move, and what has not taken will not. */
const LEAST_RATE = 1e-3;

/** The end of training. */
export interface Training {
  patches: Trained;
  /** Before each step and after the last, there on the validation memory: l_e as nll, l_a as kl, λ·l_m as wd. */
  losses: { nll: number; kl: number; wd: number }[];
  /** Whether the target is then what the model says. */
  took: boolean;
}

/**
 * Trains the patches of one example's mistakes. From the first look after `start_val` steps at which the model says
 * the target, the loss on the validation memory is noted; training ends where it no longer falls, or where the rate
 * has (the authors go on to `max_edit_step`). Waits once a look.
 * @param start the patches of `read.mistakes`
 * @throws {GpuError} when a loss is not finite
 */
export async function trainPatches(
  model: Model,
  { target }: Example,
  read: Read,
  start: Trained,
  hparams: TPatcherHparams,
  memory: { train: Queries; validate: Queries },
): Promise<Training> {
  const { gpu, dims: { width } } = model;
  const { start_val, check_val_every, max_edit_step, lr_scheduler_factor } = hparams;
  using owned = new DisposableStack();
  const keep = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const rowsOf = (label: string, rows: Queries) => f32(label, [rows.length, width], joinRows(rows).values);
  const f32 = (label: string, shape: number[], values: Float32Array) =>
    keep(fromHost(gpu, label, shape, values));
  const u32 = (label: string, values: readonly number[]) =>
    keep(fromHost(gpu, label, [values.length], Uint32Array.from(values)));
  const zeros = (label: string, shape: readonly number[], dtype: "f32" | "u32" = "f32") =>
    keep(createTensor(gpu, label, shape, { dtype }));
  const n = read.mistakes.length, T = target.length;
  const numbers: Numbers = {
    queries: rowsOf("queries", read.queries),
    streams: rowsOf("streams", read.streams),
    own: rowsOf("own queries", read.mistakes.map((t) => read.queries[t])),
    keys: f32("keys", [n, width], start.keys),
    bias: f32("bias", [n], start.bias),
    values: f32("values", [n, width], start.values),
    alpha: f32("alpha", [n, width], start.alpha),
    targets: u32("targets", target),
    weights: f32("loss weights", [T], new Float32Array(T).fill(1 / T)),
    ones: f32("ones", [T], new Float32Array(T).fill(1)),
    same: u32("one group", target.map(() => 0)),
    best: zeros("likeliest tokens", [T], "u32"),
    terms: [zeros("l_e", [1]), zeros("l_a", [1]), zeros("l_m", [1])],
  };
  const train = rowsOf("memory", memory.train), validate = rowsOf("validation memory", memory.validate);
  const trained = [numbers.keys, numbers.bias, numbers.values, numbers.alpha];
  const moments = trained.map((param) => ({
    param,
    m: zeros(`m of ${param.label}`, param.shape),
    v: zeros(`v of ${param.label}`, param.shape),
  }));
  const clock = zeros("adam clock", [1], "u32");
  const epochs: EpochState = {
    history: zeros("losses", [max_edit_step + 1, TERMS + 1]),
    epoch: zeros("step", [1], "u32"),
    total: zeros("total", [1]),
    bad: zeros("bad loss", [2], "u32"),
    skip: zeros("skip", [1], "u32"),
    gate: zeros("gate", [1], "u32"),
  };
  const nothing = zeros("no penalty", [1]);
  const places = numbers.terms.map((_, i) => u32("place", [i]));

  const recordStep = (lr: number) => {
    const tape = new Tape();
    const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
    trained.forEach((t) => tape.require(t));
    losses(ctx, model, numbers, train, hparams);
    const terms = temp(ctx, "terms", [TERMS, 1]);
    numbers.terms.forEach((t, i) => scatterRows(ctx, reshape(t, [1, 1]), places[i], terms));
    epochRule(ctx, epochs, { terms: reshape(terms, [TERMS]), penalty: nothing, first: 0, closes: true }, -1);
    tape.backward();
    const grads = trained.map((t) => tape.grad(t)!);
    clipByGlobalNorm(ctx, grads, hparams.clip);
    advance(ctx, clock);
    moments.forEach(({ param, m, v }, i) => {
      if (hparams.weight_decay > 0) addScaled(ctx, param, grads[i], hparams.weight_decay, true);
      adam(ctx, { param, grad: grads[i], m, v, step: clock, lr });
    });
    return ctx.r.finish("patch step");
  };
  const looking: Ctx = { gpu, r: gpu.recorder() };
  losses(looking, model, numbers, validate, hparams);
  using look = looking.r.finish("look at patches");

  const memoryLosses: number[] = [];
  let plan: { lr: number; step: Plan } | undefined;
  let lr = hparams.lr, wait = 0, lowest = Infinity, took = false, steps = 0;
  let last = { nll: 0, kl: 0, wd: 0 };
  let made: Float32Array[] = [];
  // The best look lies one or more back: the authors' patience of 1.
  const settled = () => bestLook(memoryLosses) < memoryLosses.length - 1;
  while (steps < max_edit_step && lr > LEAST_RATE * hparams.lr && !settled()) {
    if (plan?.lr !== lr) {
      plan?.step[Symbol.dispose]();
      plan = { lr, step: owned.use(recordStep(lr)) };
    }
    const count = Math.min(check_val_every, max_edit_step - steps);
    for (let i = 0; i < count; i++) plan.step.run();
    steps += count;
    look.run();
    const [said, bad, ...rest] = await readTensors(
      ...[gpu, numbers.best, epochs.bad, ...numbers.terms, ...trained] as const,
    );
    if (bad[0] > 0) {
      throw new GpuError(
        `The loss of a patch is not finite at step ${bad[0] - 1}`,
        `Lower the learning rate lr, which is ${hparams.lr}`,
      );
    }
    const [[nll], [kl], [wd]] = rest as Float32Array[];
    last = { nll, kl, wd };
    made = rest.slice(TERMS) as Float32Array[];
    took = target.every((id, t) => said[t] === id);
    if (took && steps > start_val) memoryLosses.push(wd);
    // torch's ReduceLROnPlateau: patience 1, threshold 5 %.
    if (nll < lowest * (1 - PLATEAU)) [lowest, wait] = [nll, 0];
    else if (++wait > 1) [lr, wait] = [lr * lr_scheduler_factor, 0];
  }
  const [rows] = await readTensors(gpu, epochs.history) as Float32Array[];
  const before = Array.from({ length: steps }, (_, step) => {
    // The rule notes a mean's terms times their number.
    const [nll, kl, wd] = rows.subarray(step * (TERMS + 1)).subarray(0, TERMS).map((x) => x / TERMS);
    return { nll, kl, wd };
  });
  const [keys, bias, values, alpha] = made;
  return { patches: { keys, bias, values, alpha }, losses: [...before, last], took };
}

/** The last look that was better than the best before it by more than {@link MEMORY_GAIN}. */
function bestLook(values: readonly number[]): number {
  let best = 0;
  values.forEach((value, i) => best = value < values[best] - MEMORY_GAIN ? i : best);
  return best;
}
