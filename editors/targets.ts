/**
 * Target optimisation: the vector δ that, added to the MLP's output at the subject's last token, makes the
 * model say the target (ROME's v*, Meng et al. 2022 section 3.1 equation 4; guide section 1.4).
 *
 *   L(δ) = mean over contexts of −log p(target) + kl·KL(p_δ ‖ p_0) at "{subject}" + wd·‖δ‖/‖v0‖²
 *
 * Many edits are optimised together in one replayed plan; each stops on its own. What does not depend on δ is
 * computed once: layers up to the edited one, and the keys and values of all tokens before the subject's last.
 * A step computes the rows from there on, the layers above, and the head at loss rows only. All of it is exact
 * by causality (guide section 14, savings 1–6 and 8).
 */
import { GpuError } from "../engine/gpu/errors.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { createCache, packRows, type Rows, selectRows, type Sequence } from "../engine/models/rows.ts";
import type { Hook, Site } from "../engine/models/sites.ts";
import { type Ctx, Tape, temp } from "../engine/ops/context.ts";
import { fill } from "../engine/ops/elementwise.ts";
import { adam, advance, normPenalty, projectBall } from "../engine/ops/optim.ts";
import { addToRows, capture, gatherRows, groupMean, scatterRows } from "../engine/ops/rows.ts";
import { stopRule, type StopState } from "../engine/ops/stop_rule.ts";
import { logits, logSoftmax, vocabLoss } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, reshape, storageOf, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";
import type { TokenisedPrompt } from "./requests.ts";

/** One edit as token ids. */
export interface TargetRequest {
  /** The prompt after each context, the bare one first. */
  prompts: TokenisedPrompt[];
  /** Ids of the wanted continuation. */
  target: number[];
  /** "{subject} is a"; only the tokens up to the subject's last matter. */
  kl: TokenisedPrompt;
}

/** Hyper-parameters of the optimisation, under the names that the field's files use. */
export interface TargetOptions {
  /** The layer whose MLP output δ is added to. */
  layer: number;
  v_num_grad_steps: number;
  v_lr: number;
  v_weight_decay: number;
  clamp_norm_factor: number;
  kl_factor: number;
  /** Stop below this loss. Default 0.05, the reference's. */
  threshold?: number;
}

/** The result of one edit. */
export interface Target {
  /** δ [D] */
  delta: Float32Array;
  /** MLP output at the bare prompt's subject-last, [D]. */
  v0: Float32Array;
  /** MLP outputs at every context's subject-last, [D] each. */
  outputs: Float32Array[];
  /** Keys k_j: inputs of the down projection at every context's subject-last, [F] each. */
  keys: Float32Array[];
  /** Loss terms of each step taken. */
  losses: { nll: number; kl: number; wd: number }[];
}

const PARTS = 3;

/**
 * Optimises the targets of all requests together. Waits for the GPU twice.
 * @throws {GpuError} when a loss is not finite, naming edit and step
 */
export async function optimiseTargets(
  model: Model,
  requests: readonly TargetRequest[],
  options: TargetOptions,
): Promise<Target[]> {
  using work = new Workspace(model, requests, options.layer);
  const { keys, outputs } = await work.prepare();
  const contexts = requests.map((r) => r.prompts.length);
  const firsts = contexts.map((_, e) => contexts.slice(0, e).reduce((a, b) => a + b, 0));
  const v0 = firsts.map((first) => outputs[first]);
  const { deltas, history, taken } = await work.optimise(v0, options);
  return requests.map((_, e) => ({
    delta: deltas[e],
    v0: v0[e],
    outputs: outputs.slice(firsts[e], firsts[e] + contexts[e]),
    keys: keys.slice(firsts[e], firsts[e] + contexts[e]),
    losses: Array.from({ length: taken[e] + 1 }, (_, step) => {
      const [nll, kl, wd] = history.subarray((step * requests.length + e) * PARTS);
      return { nll, kl, wd };
    }),
  }));
}

/** A sequence of the batch: a context's prompt with the target, or a KL prompt. */
interface Item extends Sequence {
  edit: number;
  kind: "nll" | "kl";
  /** Position of the subject's last token: the first live one. */
  lookup: number;
  slot: number;
  ids: number[];
}

class Workspace implements Disposable {
  #model: Model;
  #layer: number;
  #requests: readonly TargetRequest[];
  #items: Item[];
  #owned: Tensor[] = [];
  #cache;
  #live: Rows;
  #stream!: Tensor;

  constructor(model: Model, requests: readonly TargetRequest[], layer: number) {
    this.#model = model;
    this.#layer = layer;
    this.#requests = requests;
    this.#items = itemsOf(requests);
    const { gpu, dims } = model;
    const slots = this.#items.reduce((n, item) => n + item.ids.length, 0);
    const width = dims.kvHeads * dims.headDim;
    this.#cache = createCache(gpu, { layers: dims.layers, from: layer + 1, slots, width });
    this.#live = packRows(gpu, this.#items.map((item) => ({ ...item, from: item.lookup })), this.#packing);
  }

  get #packing() {
    return { cached: true, windows: this.#model.dims.windows };
  }

  #own(t: Tensor): Tensor {
    this.#owned.push(t);
    return t;
  }

  #u32(label: string, values: readonly number[]): Tensor {
    return this.#own(fromHost(this.#model.gpu, label, [values.length], Uint32Array.from(values)));
  }

  #f32(label: string, values: readonly number[]): Tensor {
    return this.#own(fromHost(this.#model.gpu, label, [values.length], Float32Array.from(values)));
  }

  #zeros(label: string, shape: number[], dtype: "f32" | "u32" = "f32"): Tensor {
    return this.#own(createTensor(this.#model.gpu, label, shape, { dtype }));
  }

  /** Everything that δ does not change: keys, MLP outputs, live rows of the stream, cached keys and values. */
  async prepare(): Promise<{ keys: Float32Array[]; outputs: Float32Array[] }> {
    const model = this.#model, layer = this.#layer;
    const { gpu, dims } = model;
    const items = this.#items;
    const nll = items.flatMap((item, i) => item.kind === "nll" ? [i] : []);
    using all = packRows(gpu, items, { windows: dims.windows });
    const lookups = this.#u32("lookups", nll.map((i) => all.rowOf(i, items[i].lookup)));
    const keys = this.#zeros("keys", [nll.length, dims.inner]);
    const outputs = this.#zeros("mlp outputs", [nll.length, dims.width]);
    const liveRows = this.#live.places.map(({ sequence, position }) => all.rowOf(sequence, position));
    this.#stream = this.#zeros("live stream", [liveRows.length, dims.width]);
    const liveIndex = this.#u32("live rows", liveRows);

    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const reading =
      (index: Tensor, into: Tensor): Hook => (ctx, value) => (capture(ctx, value, index, into), value);
    const hooks = new Map<Site, Hook>([
      [`layer.${layer}.mlp.key`, reading(lookups, keys)],
      [`layer.${layer}.mlp.out`, reading(lookups, outputs)],
    ]);
    const h = forward(ctx, model, all, { to: layer + 1, hooks });
    capture(ctx, h, liveIndex, this.#stream);
    this.#cachePrefixes(ctx, all, h);
    using plan = ctx.r.finish("prepare targets");
    plan.run();
    const [k, v] = await readTensors(gpu, keys, outputs) as Float32Array[];
    return { keys: rowsOf(k, dims.inner), outputs: rowsOf(v, dims.width) };
  }

  /** Runs the layers above the edited one on the tokens before each lookup, for their keys and values. */
  #cachePrefixes(ctx: Ctx, all: Rows, h: Tensor): void {
    const { gpu, dims } = this.#model;
    const prefixes = this.#items.filter((item) => item.lookup > 0 && this.#layer + 1 < dims.layers)
      .map((item) => ({ ...item, ids: item.ids.slice(0, item.lookup) }));
    if (prefixes.length === 0) return;
    const rows = packRows(gpu, prefixes, this.#packing);
    this.#disposables.push(rows);
    const index = prefixes.flatMap((item) => {
      const first = all.rowOf(this.#items.findIndex((i) => i.slot === item.slot), 0);
      return item.ids.map((_, t) => first + t);
    });
    const input = temp(ctx, "prefix stream", [index.length, dims.width]);
    capture(ctx, h, this.#u32("prefix rows", index), input);
    // The last block is only needed for its keys and values: one row through the rest of it is the least.
    const select = selectRows(gpu, rows, [0], prefixes, this.#packing);
    this.#disposables.push(select);
    forward(ctx, this.#model, rows, { from: this.#layer + 1, input, cache: this.#cache, select });
  }

  #disposables: Disposable[] = [];

  /** log p_0 after each KL prompt, [edits, vocab]: one forward of the KL rows with δ = 0. */
  #klReference(ctx: Ctx): Tensor {
    const { gpu, dims } = this.#model;
    const kl = this.#items.flatMap((item, i) => item.kind === "kl" ? [{ item, i }] : []);
    const sequences = kl.map(({ item }) => ({ ...item, from: item.lookup }));
    const rows = packRows(gpu, sequences, this.#packing);
    this.#disposables.push(rows);
    const index = this.#u32("kl rows", kl.map(({ item, i }) => this.#live.rowOf(i, item.lookup)));
    const input = temp(ctx, "kl stream", [kl.length, dims.width]);
    capture(ctx, this.#stream, index, input);
    const h = forward(ctx, this.#model, rows, { from: this.#layer + 1, input, cache: this.#cache });
    const reference = this.#zeros("kl reference", [kl.length, dims.vocab]);
    logSoftmax(ctx, logits(ctx, finalNorm(ctx, this.#model, h), weight(this.#model, "head")), reference);
    return reference;
  }

  /** The loop: one recorded step replayed, everything about it on the device. */
  async optimise(v0: Float32Array[], options: TargetOptions) {
    const model = this.#model;
    const { gpu, dims } = model;
    const items = this.#items;
    const edits = this.#requests.length;
    const steps = options.v_num_grad_steps;
    const norms = v0.map((v) => Math.hypot(...v));

    const setup: Ctx = { gpu, r: gpu.recorder() };
    const reference = this.#klReference(setup);
    using before = setup.r.finish("kl reference");
    before.run();

    const delta = this.#zeros("delta", [edits, dims.width]);
    const m = this.#zeros("adam m", [edits, dims.width]);
    const v = this.#zeros("adam v", [edits, dims.width]);
    const clock = this.#zeros("adam clock", [1], "u32");
    const radius = this.#f32("clamp radius", norms.map((n) => options.clamp_norm_factor * n));
    const decay = this.#f32("weight decay", norms.map((n) => options.v_weight_decay / (n * n)));
    const state: StopState = {
      terms: this.#zeros("loss terms", [edits, PARTS]),
      active: this.#u32("active", Array(edits).fill(1)),
      taken: this.#zeros("steps taken", [edits], "u32"),
      bad: this.#zeros("bad steps", [edits], "u32"),
      history: this.#zeros("loss history", [steps, edits, PARTS]),
      step: this.#zeros("step", [1], "u32"),
      gate: this.#zeros("gate", [1], "u32"),
    };

    const places = this.#lossRows();
    const select = selectRows(gpu, this.#live, places.map((p) => p.row), items, this.#packing);
    this.#disposables.push(select);
    const targets = this.#u32("targets", places.map((p) => p.target));
    const weights = this.#f32("loss weights", places.map((p) => p.kl ? options.kl_factor : p.weight));
    // Row losses go to the terms [edit, part]: part 0 is the NLL, 1 the KL, 2 the weight decay.
    const group = this.#u32("loss groups", places.map((p) => p.edit * PARTS + (p.kl ? 1 : 0)));
    const ones = this.#f32("ones", places.map(() => 1));
    const lookupRows = this.#u32("lookup rows", items.map((item, i) => this.#live.rowOf(i, item.lookup)));
    const lookupEdits = this.#u32("lookup edits", items.map((item) => item.edit));

    const tape = new Tape();
    const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
    ctx.r.gated(storageOf(state.gate), () => {
      tape.require(delta);
      const h0 = addToRows(ctx, this.#stream, lookupRows, lookupEdits, delta);
      // Above the last layer there is no block to do the selecting.
      const h = this.#layer + 1 === dims.layers
        ? gatherRows(ctx, h0, select.index)
        : forward(ctx, model, this.#live, { from: this.#layer + 1, input: h0, cache: this.#cache, select });
      const loss = vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), {
        targets,
        weights,
        kl: { rows: edits, reference },
      });
      groupMean(
        ctx,
        reshape(loss, [places.length, 1]),
        group,
        ones,
        reshape(state.terms, [edits * PARTS, 1]),
      );
      const noGradient = temp(ctx, "unused gradient", [edits, dims.width]);
      fill(ctx, noGradient, 0);
      const wd = temp(ctx, "weight decay loss", [edits]);
      fill(ctx, wd, 0);
      normPenalty(ctx, { delta, coefficient: decay, loss: wd, grad: noGradient });
      this.#noteDecay(ctx, wd, state.terms);
      stopRule(ctx, state, options.threshold ?? 0.05);
      tape.backward();
      const grad = tape.grad(delta)!;
      normPenalty(ctx, { delta, coefficient: decay, loss: wd, grad });
      advance(ctx, clock);
      adam(ctx, { param: delta, grad, m, v, step: clock, lr: options.v_lr, active: state.active });
      projectBall(ctx, delta, radius, state.active);
    });
    using loop = ctx.r.finish("optimise targets");
    loop.run(steps);
    const [d, history, taken, bad] = await readTensors(gpu, delta, state.history, state.taken, state.bad);
    const failed = (bad as Uint32Array).findIndex((step) => step > 0);
    if (failed >= 0) {
      throw new GpuError(
        `The loss of edit ${failed} is not finite at step ${(bad as Uint32Array)[failed] - 1}`,
      );
    }
    return {
      deltas: rowsOf(d as Float32Array, dims.width),
      history: history as Float32Array,
      taken: taken as Uint32Array,
    };
  }

  #noteDecay(ctx: Ctx, wd: Tensor, terms: Tensor): void {
    const edits = this.#requests.length;
    const index = this.#u32("decay terms", Array.from({ length: edits }, (_, e) => e * PARTS + 2));
    scatterRows(ctx, reshape(wd, [edits, 1]), index, reshape(terms, [edits * PARTS, 1]));
  }

  /** Loss rows in ascending order, all NLL rows before all KL rows. */
  #lossRows() {
    return this.#items.flatMap((item, i) => {
      const request = this.#requests[item.edit];
      if (item.kind === "kl") {
        return [{ row: this.#live.rowOf(i, item.lookup), edit: item.edit, target: 0, weight: 0, kl: true }];
      }
      const { target, prompts } = request;
      const first = item.ids.length - target.length;
      return target.map((id, t) => ({
        row: this.#live.rowOf(i, first + t),
        edit: item.edit,
        target: id,
        weight: 1 / (target.length * prompts.length),
        kl: false,
      }));
    });
  }

  [Symbol.dispose](): void {
    this.#owned.forEach((t) => freeTensor(this.#model.gpu, t));
    this.#disposables.forEach((d) => d[Symbol.dispose]());
    this.#cache[Symbol.dispose]();
    this.#live[Symbol.dispose]();
  }
}

/** All NLL sequences edit by edit, then all KL sequences; slots one after another. */
function itemsOf(requests: readonly TargetRequest[]): Item[] {
  let slot = 0;
  const item = (edit: number, kind: Item["kind"], ids: number[], lookup: number): Item => {
    const made = { edit, kind, ids, lookup, slot };
    slot += ids.length;
    return made;
  };
  return [
    ...requests.flatMap(({ prompts, target }, edit) =>
      prompts.map((p) => item(edit, "nll", [...p.ids, ...target.slice(0, -1)], p.subjectLast))
    ),
    ...requests.map(({ kl }, edit) => item(edit, "kl", kl.ids.slice(0, kl.subjectLast + 1), kl.subjectLast)),
  ];
}

function rowsOf(flat: Float32Array, width: number): Float32Array[] {
  return Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
}
