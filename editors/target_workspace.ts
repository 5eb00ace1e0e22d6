/**
 * The device's side of target optimisation (see targets.ts): what does not depend on δ is computed once, then one
 * recorded step is replayed.
 */
import { InputError } from "../engine/io/errors.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { createCache, packRows, type Rows, selectRows } from "../engine/models/rows.ts";
import type { Hook, Site } from "../engine/models/sites.ts";
import { type Ctx, Tape, temp } from "../engine/ops/context.ts";
import { fill } from "../engine/ops/elementwise.ts";
import { adam, advance, normPenalty, projectBall } from "../engine/ops/optim.ts";
import { addToRows, capture, gatherRows, groupMean, scatterRows } from "../engine/ops/rows.ts";
import { stopRule, type StopState } from "../engine/ops/stop_rule.ts";
import { logits, logSoftmax, vocabLoss } from "../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, reshape, storageOf, type Tensor } from "../engine/tensor/tensor.ts";
import { fromHost, readTensors } from "../engine/tensor/transfer.ts";
import { itemsOf, lossRowsOf, PARTS, type TargetItem } from "./target_items.ts";
import type { TargetOptions, TargetRequest } from "./targets.ts";

/** One optimised vector an edit, with what Adam keeps of it. */
interface Variable {
  /** δ and Adam's moments, [E, D] each. */
  delta: Tensor;
  m: Tensor;
  v: Tensor;
  /** [E]: ‖δ‖ at most, and the factor of ‖δ‖ in the loss. */
  radius: Tensor;
  decay: Tensor;
}

/** One batch of edits on the device. */
export class Workspace implements Disposable {
  #model: Model;
  #options: TargetOptions;
  /** The first layer that a step computes. */
  #from: number;
  #requests: readonly TargetRequest[];
  #items: TargetItem[];
  #owned: Tensor[] = [];
  #disposables: Disposable[] = [];
  #cache;
  #live: Rows;
  #stream!: Tensor;

  constructor(model: Model, requests: readonly TargetRequest[], options: TargetOptions) {
    const { gpu, dims } = model;
    const { layer, attention } = options;
    if (attention && layer + 1 >= dims.layers) {
      throw new InputError(`A second δ at the attention of layer ${layer} needs a layer above it`);
    }
    this.#model = model;
    this.#options = options;
    this.#from = attention ? layer : layer + 1;
    this.#requests = requests;
    this.#items = itemsOf(requests);
    const slots = this.#items.reduce((n, item) => n + item.ids.length, 0);
    const width = dims.kvHeads * dims.headDim;
    this.#cache = createCache(gpu, { layers: dims.layers, from: this.#from, slots, width });
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

  /**
   * Everything that δ does not change: keys, reference vectors, live rows of the stream, cached keys and values.
   * @returns vectors of every prompt in order; `attention` only where it is optimised
   */
  async prepare(): Promise<Record<"keys" | "outputs", Float32Array[]> & { attention?: Float32Array[] }> {
    const model = this.#model;
    const { layer, reference, attention: both } = this.#options;
    const { gpu, dims } = model;
    const items = this.#items;
    const nll = items.flatMap((item, i) => item.kind === "nll" ? [i] : []);
    using all = packRows(gpu, items, { windows: dims.windows });
    const lookups = this.#u32("lookups", nll.map((i) => all.rowOf(i, items[i].lookup)));
    const keys = this.#zeros("keys", [nll.length, dims.inner]);
    const outputs = this.#zeros("reference vectors", [nll.length, dims.width]);
    const attention = both ? [this.#zeros("attention outputs", [nll.length, dims.width])] : [];
    const liveRows = this.#live.places.map(({ sequence, position }) => all.rowOf(sequence, position));
    this.#stream = this.#zeros("live stream", [liveRows.length, dims.width]);

    const ctx: Ctx = { gpu, r: gpu.recorder() };
    const reading = (into: Tensor): Hook => (ctx, value) => (capture(ctx, value, lookups, into), value);
    let entering: Tensor | undefined;
    const hooks = new Map<Site, Hook>([
      [`layer.${layer}.mlp.key`, reading(keys)],
      [reference === "block" ? `layer.${layer}.out` : `layer.${layer}.mlp.out`, reading(outputs)],
      ...attention.map((into): [Site, Hook] => [`layer.${layer}.attn.out`, reading(into)]),
      [`layer.${this.#from}.in`, (_, value) => entering = value],
    ]);
    const h = forward(ctx, model, all, { to: layer + 1, hooks });
    capture(ctx, entering ?? h, this.#u32("live rows", liveRows), this.#stream);
    this.#cachePrefixes(ctx, all, entering ?? h);
    using plan = ctx.r.finish("prepare targets");
    plan.run();
    const [k, v, a] = await readTensors(gpu, keys, outputs, ...attention) as Float32Array[];
    const vectors = (flat: Float32Array) => rowsOf(flat, dims.width);
    return { keys: rowsOf(k, dims.inner), outputs: vectors(v), ...(a ? { attention: vectors(a) } : {}) };
  }

  /** Runs the layers above δ on the tokens before each lookup, for their keys and values. */
  #cachePrefixes(ctx: Ctx, all: Rows, h: Tensor): void {
    const { gpu, dims } = this.#model;
    const prefixes = this.#items.filter((item) => item.lookup > 0 && this.#from < dims.layers)
      .map((item) => ({ ...item, ids: item.ids.slice(0, item.lookup) }));
    if (prefixes.length === 0) return;
    const rows = packRows(gpu, prefixes, this.#packing);
    this.#disposables.push(rows);
    const sequenceOf = new Map(this.#items.map((item, i) => [item.slot, i]));
    const index = prefixes.flatMap((item) => {
      const first = all.rowOf(sequenceOf.get(item.slot)!, 0);
      return item.ids.map((_, t) => first + t);
    });
    const input = temp(ctx, "prefix stream", [index.length, dims.width]);
    capture(ctx, h, this.#u32("prefix rows", index), input);
    // The last block is only needed for its keys and values: one row through the rest of it is the least.
    const select = selectRows(gpu, rows, [0], prefixes, this.#packing);
    this.#disposables.push(select);
    forward(ctx, this.#model, rows, { from: this.#from, input, cache: this.#cache, select });
  }

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
    const h = forward(ctx, this.#model, rows, { from: this.#from, input, cache: this.#cache });
    const reference = this.#zeros("kl reference", [kl.length, dims.vocab]);
    logSoftmax(ctx, logits(ctx, finalNorm(ctx, this.#model, h), weight(this.#model, "head")), reference);
    return reference;
  }

  #variable(label: string, v0: readonly Float32Array[]): Variable {
    const { clamp_norm_factor: clamp, v_weight_decay: decay } = this.#options;
    const norms = v0.map((v) => Math.hypot(...v));
    const shape = [v0.length, this.#model.dims.width];
    return {
      delta: this.#zeros(label, shape),
      m: this.#zeros("adam m", shape),
      v: this.#zeros("adam v", shape),
      radius: this.#f32("clamp radius", norms.map((n) => clamp * n)),
      decay: this.#f32("weight decay", norms.map((n) => decay / (n * n))),
    };
  }

  /**
   * The loop: one recorded step replayed, everything about it on the device.
   * @param references v0 of every edit; for a second δ at the attention's output also its reference vectors
   */
  async optimise(references: readonly (readonly Float32Array[])[]) {
    const model = this.#model;
    const { gpu, dims } = model;
    const { v_num_grad_steps: steps, v_lr: lr, threshold = 0.05 } = this.#options;
    const items = this.#items;
    const edits = this.#requests.length;

    const setup: Ctx = { gpu, r: gpu.recorder() };
    const reference = this.#klReference(setup);
    using before = setup.r.finish("kl reference");
    before.run();

    const variables = references.map((v0, i) => this.#variable(i === 0 ? "delta" : "attention delta", v0));
    const clock = this.#zeros("adam clock", [1], "u32");
    const state: StopState = {
      terms: this.#zeros("loss terms", [edits, PARTS]),
      active: this.#u32("active", Array(edits).fill(1)),
      taken: this.#zeros("steps taken", [edits], "u32"),
      bad: this.#zeros("bad steps", [edits], "u32"),
      history: this.#zeros("loss history", [steps, edits, PARTS]),
      step: this.#zeros("step", [1], "u32"),
      gate: this.#zeros("gate", [1], "u32"),
    };

    const places = lossRowsOf(this.#requests, items, this.#live, this.#options);
    const select = selectRows(gpu, this.#live, places.map((p) => p.row), items, this.#packing);
    this.#disposables.push(select);
    const targets = this.#u32("targets", places.map((p) => p.target));
    const weights = this.#f32("loss weights", places.map((p) => p.weight));
    // Row losses go to the terms [edit, part]: part 0 is the NLL, 1 the KL, 2 the weight decay.
    const group = this.#u32("loss groups", places.map((p) => p.edit * PARTS + (p.kl ? 1 : 0)));
    const ones = this.#f32("ones", places.map(() => 1));

    const tape = new Tape();
    const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
    ctx.r.gated(storageOf(state.gate), () => {
      variables.forEach(({ delta }) => tape.require(delta));
      const h = this.#edited(ctx, variables, select);
      const loss = vocabLoss(ctx, finalNorm(ctx, model, h), weight(model, "head"), {
        targets,
        weights,
        kl: { rows: edits, reference },
      });
      const terms = reshape(state.terms, [edits * PARTS, 1]);
      groupMean(ctx, reshape(loss, [places.length, 1]), group, ones, terms);
      const noGradient = temp(ctx, "unused gradient", [edits, dims.width]);
      fill(ctx, noGradient, 0);
      const wd = temp(ctx, "weight decay loss", [edits]);
      fill(ctx, wd, 0);
      for (const { delta, decay: coefficient } of variables) {
        normPenalty(ctx, { delta, coefficient, loss: wd, grad: noGradient });
      }
      const decays = this.#u32("decay terms", Array.from({ length: edits }, (_, e) => e * PARTS + 2));
      scatterRows(ctx, reshape(wd, [edits, 1]), decays, terms);
      stopRule(ctx, state, threshold);
      tape.backward();
      advance(ctx, clock);
      for (const { delta, m, v, radius, decay: coefficient } of variables) {
        const grad = tape.grad(delta)!;
        normPenalty(ctx, { delta, coefficient, loss: wd, grad });
        adam(ctx, { param: delta, grad, m, v, step: clock, lr, active: state.active });
        projectBall(ctx, delta, radius, state.active);
      }
    });
    using loop = ctx.r.finish("optimise targets");
    loop.run(steps);
    const [{ delta }] = variables;
    const [d, history, taken, bad] = await readTensors(gpu, delta, state.history, state.taken, state.bad);
    return {
      deltas: rowsOf(d as Float32Array, dims.width),
      history: history as Float32Array,
      taken: taken as Uint32Array,
      bad: bad as Uint32Array,
    };
  }

  /** The stream at the loss rows with every δ added at its place. */
  #edited(ctx: Ctx, variables: readonly Variable[], select: ReturnType<typeof selectRows>): Tensor {
    const { dims } = this.#model;
    const { layer } = this.#options;
    const items = this.#items;
    const rows = this.#u32("lookup rows", items.map((item, i) => this.#live.rowOf(i, item.lookup)));
    const edits = this.#u32("lookup edits", items.map((item) => item.edit));
    const span = { from: this.#from, cache: this.#cache, select };
    const [{ delta }, attention] = variables;
    if (attention) {
      const adding = (d: Tensor): Hook => (ctx, value) => addToRows(ctx, value, rows, edits, d);
      const hooks = new Map<Site, Hook>([
        [`layer.${layer}.attn.out`, adding(attention.delta)],
        [`layer.${layer}.mlp.out`, adding(delta)],
      ]);
      return forward(ctx, this.#model, this.#live, { ...span, input: this.#stream, hooks });
    }
    // What is added to the MLP's output is added to the block's.
    const input = addToRows(ctx, this.#stream, rows, edits, delta);
    // Above the last layer there is no block to do the selecting.
    if (this.#from === dims.layers) return gatherRows(ctx, input, select.index);
    return forward(ctx, this.#model, this.#live, { ...span, input });
  }

  [Symbol.dispose](): void {
    this.#owned.forEach((t) => freeTensor(this.#model.gpu, t));
    this.#disposables.forEach((d) => d[Symbol.dispose]());
    this.#cache[Symbol.dispose]();
    this.#live[Symbol.dispose]();
  }
}

function rowsOf(flat: Float32Array, width: number): Float32Array[] {
  return Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
}
