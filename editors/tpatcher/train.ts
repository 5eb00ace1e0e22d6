/** The training of T-Patcher's patches: one recorded step, replayed between looks at whether the edit took. */
import { GpuError } from "../../engine/gpu/errors.ts";
import type { Plan } from "../../engine/gpu/plan.ts";
import { finalNorm, type Model, weight } from "../../engine/models/model.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import { type Activation, activation } from "../../engine/ops/activation.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { addScaled, fill, multiply } from "../../engine/ops/elementwise.ts";
import { linear, type Weight } from "../../engine/ops/linear.ts";
import { epochRule, type EpochState } from "../../engine/ops/epoch_rule.ts";
import { adam, advance, clipByGlobalNorm } from "../../engine/ops/optim.ts";
import { groupMean, scatterRows } from "../../engine/ops/rows.ts";
import { topExp } from "../../engine/ops/top_exp.ts";
import { vocabLoss, vocabScores } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../../engine/tensor/transfer.ts";
import type { Example } from "../finetune/train.ts";
import type { Queries, TPatcherHparams } from "../t_patcher.ts";
import type { Read } from "./mistakes.ts";

/** Finished patches, row-major. */
export interface Patches {
  /** [n, width] */
  keys: Float32Array;
  /** [n] */
  bias: Float32Array;
  /** [n, width], v₀ ⊙ α */
  values: Float32Array;
}

/** Losses of the authors' eight equal copies: 5 of 8 are the largest, 1000 of 8 the 125 largest. */
const LARGEST_OWN = 1, LARGEST_MEMORY = 125;
/** nll, l_a and l_m. */
const TERMS = 3;
/** A validation loss on the memory that falls by less ends training. */
const MEMORY_GAIN = 0.001;
/** The plateau of the rate: relative. */
const PLATEAU = 0.05;

/** Everything of one edit on the device. */
interface State {
  queries: Tensor;
  streams: Tensor;
  own: Tensor;
  memory: { train: Tensor; validate: Tensor };
  keys: Tensor;
  bias: Tensor;
  values: Tensor;
  alpha: Tensor;
  targets: Tensor;
  weights: Tensor;
  ones: Tensor;
  same: Tensor;
  order: Tensor;
  /** nll, l_a, l_m of a step. */
  terms: [Tensor, Tensor, Tensor];
}

/**
 * Trains the patches of one example's mistakes.
 * @param given memories, and v₀ [n, width]
 * @returns the patches, the loss terms before each step and after the last (l_a as kl, l_m as wd, weighted), and
 *   whether the target is then what the model says
 * @throws {GpuError} when a loss is not finite
 */
export async function trainPatches(
  model: Model,
  { target }: Example,
  { queries, streams, mistakes }: Read,
  hparams: TPatcherHparams,
  given: { train: Queries; validate: Queries; values: Float32Array },
): Promise<{ patches: Patches; losses: { nll: number; kl: number; wd: number }[]; took: boolean }> {
  const { gpu, dims: { width } } = model;
  using owned = new DisposableStack();
  const keep = (t: Tensor) => owned.adopt(t, () => freeTensor(gpu, t));
  const rowsOf = (label: string, rows: Queries) => {
    const values = new Float32Array(rows.length * width);
    rows.forEach((row, i) => values.set(row, i * width));
    return keep(fromHost(gpu, label, [rows.length, width], values));
  };
  const f32 = (label: string, shape: number[], values: Float32Array) =>
    keep(fromHost(gpu, label, shape, values));
  const u32 = (label: string, values: number[]) =>
    keep(fromHost(gpu, label, [values.length], Uint32Array.from(values)));
  const n = mistakes.length, T = target.length;
  const own = mistakes.map((t) => queries[t]);
  const scalar = (label: string) => keep(createTensor(gpu, label, [1]));
  const state: State = {
    queries: rowsOf("queries", queries),
    streams: rowsOf("streams", streams),
    own: rowsOf("own queries", own),
    memory: { train: rowsOf("memory", given.train), validate: rowsOf("validation memory", given.validate) },
    keys: rowsOf("keys", own.map(newKey)),
    bias: f32("bias", [n], new Float32Array(n)),
    values: f32("values", [n, width], given.values),
    alpha: f32("alpha", [n, width], new Float32Array(n * width).fill(hparams.amplify_con)),
    targets: u32("targets", [...target]),
    weights: f32("loss weights", [T], new Float32Array(T).fill(1 / T)),
    ones: f32("ones", [T], new Float32Array(T).fill(1)),
    same: u32("one group", target.map(() => 0)),
    order: u32("order", [...target.keys()]),
    terms: [scalar("nll"), scalar("activation loss"), scalar("memory loss")],
  };
  const trained = [state.keys, state.bias, state.values, state.alpha];
  const moments = trained.map((param) => ({
    param,
    m: keep(createTensor(gpu, `m of ${param.label}`, param.shape)),
    v: keep(createTensor(gpu, `v of ${param.label}`, param.shape)),
  }));
  const clock = keep(createTensor(gpu, "adam clock", [1], { dtype: "u32" }));
  const zeros = (label: string, shape: number[], dtype: "f32" | "u32" = "u32") =>
    keep(createTensor(gpu, label, shape, { dtype }));
  const epochs: EpochState = {
    history: zeros("losses", [hparams.max_edit_step + 1, TERMS + 1], "f32"),
    epoch: zeros("step", [1]),
    total: zeros("total", [1], "f32"),
    bad: zeros("bad loss", [2]),
    skip: zeros("skip", [1]),
    gate: zeros("gate", [1]),
  };
  const nothing = zeros("no penalty", [1], "f32");
  const places = state.terms.map((_, i) => u32("place", [i]));

  const recordStep = (lr: number) => {
    const tape = new Tape();
    const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
    trained.forEach((t) => tape.require(t));
    losses(ctx, model, state, state.memory.train, hparams);
    const terms = temp(ctx, "terms", [TERMS, 1]);
    state.terms.forEach((t, i) => scatterRows(ctx, reshape(t, [1, 1]), places[i], terms));
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
  const best = keep(createTensor(gpu, "likeliest tokens", [T], { dtype: "u32" }));
  using look = recordLook(model, state, hparams, best);

  const memoryLosses: number[] = [];
  let last = { nll: 0, kl: 0, wd: 0 }, steps = 0;
  let plan: { lr: number; step: Plan } | undefined;
  let lr = hparams.lr, wait = 0, lowest = Infinity, took = false, done = false;
  let finished: Patches | undefined;
  for (let step = 0; step < hparams.max_edit_step && !done;) {
    const count = Math.min(hparams.check_val_every, hparams.max_edit_step - step);
    if (plan?.lr !== lr) {
      plan?.step[Symbol.dispose]();
      plan = { lr, step: owned.use(recordStep(lr)) };
    }
    for (let i = 0; i < count; i++) plan.step.run();
    step += count;
    look.run();
    const [said, bad, ...terms] = await readTensors(gpu, best, epochs.bad, ...state.terms, ...trained);
    if (bad[0] > 0) {
      throw new GpuError(
        `The loss of a patch is not finite at step ${bad[0] - 1}`,
        `Lower the learning rate lr, which is ${hparams.lr}`,
      );
    }
    const [[nll], [own], [memory]] = terms as Float32Array[];
    // torch's ReduceLROnPlateau: patience 1, threshold 5 %.
    if (nll < lowest * (1 - PLATEAU)) [lowest, wait] = [nll, 0];
    else if (++wait > 1) [lr, wait] = [lr * hparams.lr_scheduler_factor, 0];
    const says = target.every((id, t) => said[t] === id);
    const patches = patchesOf(terms.slice(3) as Float32Array[]);
    last = { nll, kl: own, wd: memory };
    if (step >= hparams.start_val && says) {
      took = true;
      memoryLosses.push(memory);
      const least = Math.min(...memoryLosses);
      if (memory === least) finished = patches;
      // Patience 1: the best look lies one or more back.
      done = bestLook(memoryLosses) < memoryLosses.length - 1;
    }
    steps = step;
    if (step >= hparams.max_edit_step) finished ??= patches;
  }
  const [rows] = await readTensors(gpu, epochs.history) as Float32Array[];
  const all = Array.from({ length: steps }, (_, step) => {
    // The rule notes a mean's terms times their number.
    const [nll, kl, wd] = rows.subarray(step * (TERMS + 1)).subarray(0, TERMS).map((x) => x / TERMS);
    return { nll, kl, wd };
  });
  return { patches: finished!, losses: [...all, last], took };
}

/** The key of a new patch, whose pre-activation at q is then 1 (its bias is 0): q/‖q‖². */
export function newKey(q: Float32Array): Float32Array {
  const square = q.reduce((sum, x) => sum + x * x, 0);
  return q.map((x) => x / square);
}

/** The last look that was better than the best before it by more than {@link MEMORY_GAIN}. */
function bestLook(values: readonly number[]): number {
  let best = 0;
  values.forEach((value, i) => best = value < values[best] - MEMORY_GAIN ? i : best);
  return best;
}

function patchesOf([keys, bias, values, alpha]: Float32Array[]): Patches {
  return { keys, bias, values: values.map((v, i) => v * alpha[i]) };
}

/** l_e + l_a + λ·l_m, with the terms in the state's scalars; gradients flow from their sum. */
function losses(ctx: Ctx, model: Model, state: State, memory: Tensor, hparams: TPatcherHparams): void {
  const { queries, own, keys, bias } = state;
  const [nll, activationLoss, memoryLoss] = state.terms;
  const [n, width] = keys.shape;
  const key: Weight = {
    ...{
      role: "patch keys",
      name: "keys",
      matrix: keys,
      layout: "out_in",
      out: n,
      in: width,
      bias,
      overlays: [],
    },
  };
  state.terms.forEach((t) => fill(ctx, t, 0));
  const h = patched(ctx, state, linear(ctx, queries, key), hparams.activation);
  const loss = vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), state);
  groupMean(ctx, reshape(loss, [loss.shape[0], 1]), state.same, state.ones, reshape(nll, [1, 1]));
  const a = linear(ctx, own, key), m = linear(ctx, memory, key);
  const { alc, mlc: scale, margin_val1, margin_val2 } = hparams;
  topExp(ctx, a, activationLoss, { sign: -1, diagonal: true, k: LARGEST_OWN, scale: alc });
  topExp(ctx, m, memoryLoss, { c: -margin_val2, k: LARGEST_MEMORY, scale });
  topExp(ctx, m, memoryLoss, { c: margin_val1, shift: a, k: LARGEST_MEMORY, scale });
}

/** The stream with what the patches add: act(z) (v₀ ⊙ α). */
function patched(ctx: Ctx, { streams, values, alpha }: State, z: Tensor, kind: Activation): Tensor {
  const [n, width] = values.shape;
  const value: Weight = {
    ...{ role: "patch values", name: "values", layout: "in_out", out: width, in: n, overlays: [] },
    matrix: multiply(ctx, values, alpha),
  };
  return linear(ctx, activation(ctx, z, kind), value, { residual: streams });
}

/** Without gradients: what the model says, and the terms with the validation memory. */
function recordLook(model: Model, state: State, hparams: TPatcherHparams, best: Tensor) {
  const { gpu } = model;
  const ctx: Ctx = { gpu, r: gpu.recorder() };
  losses(ctx, model, state, state.memory.validate, hparams);
  const { keys, bias, queries, order, targets } = state;
  const [n, width] = keys.shape;
  const key: Weight = {
    ...{
      role: "patch keys",
      name: "keys",
      matrix: keys,
      layout: "out_in",
      out: n,
      in: width,
      bias,
      overlays: [],
    },
  };
  const h = patched(ctx, state, linear(ctx, queries, key), hparams.activation);
  const logProbs = temp(ctx, "log-probabilities", [targets.shape[0]]);
  vocabScores(ctx, finalNorm(ctx, model, h), weight(model, "head"), { rows: order, targets }, {
    logProbs,
    best,
  });
  return ctx.r.finish("look at patches");
}

/** Seeded numbers of a standard normal distribution. */
export function normals(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}
