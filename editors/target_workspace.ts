/**
 * The device's side of target optimisation (see targets.ts): what does not depend on δ is computed once, then one
 * recorded step is replayed.
 */
import { InputError } from "../engine/io/errors.ts";
import { finalNorm, forward, type Model, weight } from "../engine/models/model.ts";
import { createCache, type KvCache, packRows, type Rows, selectRows } from "../engine/models/rows.ts";
import type { Hook, Site } from "../engine/models/sites.ts";
import { type Ctx, temp } from "../engine/ops/context.ts";
import { capture } from "../engine/ops/rows.ts";
import type { StopState } from "../engine/ops/stop_rule.ts";
import { logits, logSoftmax } from "../engine/ops/vocab_loss.ts";
import { reshape, type Tensor } from "../engine/tensor/tensor.ts";
import { readTensors } from "../engine/tensor/transfer.ts";
import { Scratch } from "./scratch.ts";
import { itemsOf, PARTS, type TargetItem } from "./target_items.ts";
import { type LiveItems, recordStep, type StepParts, type Variable } from "./target_step.ts";
import type { TargetOptions, TargetRequest } from "./targets.ts";

/**
 * After how many steps it is looked who has stopped, and from how many rows of a step on: the steps of fewer rows
 * are not worth the wait.
 */
const LOOK = { steps: 3, rows: 64 };

/** One batch of edits on the device. */
export class Workspace implements Disposable {
  #model: Model;
  #options: TargetOptions;
  /** The first layer that a step computes. */
  #from: number;
  #requests: readonly TargetRequest[];
  #items: TargetItem[];
  #scratch: Scratch;
  #cache: KvCache;
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
    this.#scratch = new Scratch(gpu);
    const slots = this.#items.reduce((n, item) => n + item.ids.length, 0);
    const width = dims.kvHeads * dims.headDim;
    this.#cache = this.#scratch.use(
      createCache(gpu, { layers: dims.layers, from: this.#from, slots, width }),
    );
    this.#live = this.#scratch.use(packRows(gpu, this.#items.map(fromLookup), this.#packing));
  }

  get #packing() {
    return { cached: true, windows: this.#model.dims.windows };
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
    const lookups = this.#scratch.u32("lookups", nll.map((i) => all.rowOf(i, items[i].lookup)));
    const keys = this.#scratch.zeros("keys", [nll.length, dims.inner]);
    const outputs = this.#scratch.zeros("reference vectors", [nll.length, dims.width]);
    const attention = both ? [this.#scratch.zeros("attention outputs", [nll.length, dims.width])] : [];
    const liveRows = this.#live.places.map(({ sequence, position }) => all.rowOf(sequence, position));
    this.#stream = this.#scratch.zeros("live stream", [liveRows.length, dims.width]);

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
    capture(ctx, entering ?? h, this.#scratch.u32("live rows", liveRows), this.#stream);
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
    this.#scratch.use(rows);
    const sequenceOf = new Map(this.#items.map((item, i) => [item.slot, i]));
    const index = prefixes.flatMap((item) => {
      const first = all.rowOf(sequenceOf.get(item.slot)!, 0);
      return item.ids.map((_, t) => first + t);
    });
    const input = temp(ctx, "prefix stream", [index.length, dims.width]);
    capture(ctx, h, this.#scratch.u32("prefix rows", index), input);
    // The last block is only needed for its keys and values: one row through the rest of it is the least.
    const select = selectRows(gpu, rows, [0], prefixes, this.#packing);
    this.#scratch.use(select);
    forward(ctx, this.#model, rows, { from: this.#from, input, cache: this.#cache, select });
  }

  /** log p_0 after each KL prompt, [edits, vocab]: one forward of the KL rows with δ = 0. */
  #klReference(ctx: Ctx): Tensor {
    const { gpu, dims } = this.#model;
    const kl = this.#items.flatMap((item, i) => item.kind === "kl" ? [{ item, i }] : []);
    const sequences = kl.map(({ item }) => ({ ...item, from: item.lookup }));
    const rows = packRows(gpu, sequences, this.#packing);
    this.#scratch.use(rows);
    const index = this.#scratch.u32("kl rows", kl.map(({ item, i }) => this.#live.rowOf(i, item.lookup)));
    const input = temp(ctx, "kl stream", [kl.length, dims.width]);
    capture(ctx, this.#stream, index, input);
    const h = forward(ctx, this.#model, rows, { from: this.#from, input, cache: this.#cache });
    const reference = this.#scratch.zeros("kl reference", [kl.length, dims.vocab]);
    logSoftmax(ctx, logits(ctx, finalNorm(ctx, this.#model, h), weight(this.#model, "head")), reference);
    return reference;
  }

  #variable(label: string, v0: readonly Float32Array[]): Variable {
    const { clamp_norm_factor: clamp, v_weight_decay: decay } = this.#options;
    const norms = v0.map((v) => Math.hypot(...v));
    const shape = [v0.length, this.#model.dims.width];
    return {
      delta: this.#scratch.zeros(label, shape),
      m: this.#scratch.zeros("adam m", shape),
      v: this.#scratch.zeros("adam v", shape),
      radius: this.#scratch.f32("clamp radius", norms.map((n) => clamp * n)),
      decay: this.#scratch.f32("weight decay", norms.map((n) => decay / (n * n))),
    };
  }

  /**
   * The loop: one recorded step replayed, everything about it on the device.
   * @param references v0 of every edit; for a second δ at the attention's output also its reference vectors
   */
  async optimise(references: readonly (readonly Float32Array[])[]) {
    const model = this.#model;
    const { gpu, dims } = model;
    const { v_num_grad_steps: steps, sure } = this.#options;
    const edits = this.#requests.length;

    const setup: Ctx = { gpu, r: gpu.recorder() };
    const reference = this.#klReference(setup);
    using before = setup.r.finish("kl reference");
    before.run();

    const variables = references.map((v0, i) => this.#variable(i === 0 ? "delta" : "attention delta", v0));
    const clock = this.#scratch.zeros("adam clock", [1], "u32");
    const state: StopState = {
      terms: this.#scratch.zeros("loss terms", [edits, PARTS]),
      active: this.#scratch.u32("active", Array(edits).fill(1)),
      taken: this.#scratch.zeros("steps taken", [edits], "u32"),
      bad: this.#scratch.zeros("bad steps", [edits], "u32"),
      history: this.#scratch.zeros("loss history", [steps, edits, PARTS]),
      step: this.#scratch.zeros("step", [1], "u32"),
      gate: this.#scratch.zeros("gate", [1], "u32"),
    };

    const nll = sure && this.#scratch.f32("NLL factors", Array(edits + 1).fill(1));
    await this.#replay(variables, clock, state, reference, nll && reshape(nll, [edits + 1, 1]));
    const [{ delta }] = variables;
    const [d, history, taken, bad] = await readTensors(gpu, delta, state.history, state.taken, state.bad);
    return {
      deltas: rowsOf(d as Float32Array, dims.width),
      history: history as Float32Array,
      taken: taken as Uint32Array,
      bad: bad as Uint32Array,
    };
  }

  /** Replays the step until all have stopped; rows of those that have are left out as soon as that is seen. */
  async #replay(
    variables: Variable[],
    clock: Tensor,
    state: StopState,
    reference: Tensor,
    nll?: Tensor,
  ): Promise<void> {
    const parts: StepParts = {
      ...{ model: this.#model, requests: this.#requests, options: this.#options },
      ...{ from: this.#from, cache: this.#cache, variables, clock, state, nll },
    };
    const { v_num_grad_steps: steps } = this.#options;
    let now = new Scratch(this.#model.gpu);
    try {
      let live: LiveItems = { items: this.#items, rows: this.#live, stream: this.#stream, reference };
      let step = recordStep(parts, live, now);
      for (let done = 0; done < steps;) {
        const looking = live.rows.count >= LOOK.rows && live.reference.shape[0] > 1;
        const times = Math.min(looking ? LOOK.steps : Infinity, steps - done);
        step.run(times);
        done += times;
        if (done === steps) break;
        const [active] = await readTensors(this.#model.gpu, state.active);
        const left = live.items.filter(({ edit }) => active[edit]);
        if (left.length === 0) break;
        if (left.length === live.items.length) continue;
        const next = new Scratch(this.#model.gpu);
        live = this.#without(live, left, next);
        now[Symbol.dispose]();
        now = next;
        step = recordStep(parts, live, now);
      }
    } finally {
      now[Symbol.dispose]();
    }
  }

  /** The items that are left, their stream and reference copied; their keys and values stay where they are. */
  #without(
    { items, rows, stream, reference }: LiveItems,
    left: readonly TargetItem[],
    into: Scratch,
  ): LiveItems {
    const { gpu, dims } = this.#model;
    const kept = into.use(packRows(gpu, left.map(fromLookup), this.#packing));
    const sequences = left.map((item) => items.indexOf(item));
    const ofKl = (all: readonly TargetItem[]) => all.filter(({ kind }) => kind === "kl");
    const before = ofKl(items);
    const index = {
      rows: into.u32("rows left", kept.places.map((p) => rows.rowOf(sequences[p.sequence], p.position))),
      edits: into.u32("edits left", ofKl(left).map((item) => before.indexOf(item))),
    };
    const copies = {
      stream: into.zeros("live stream", [kept.count, dims.width]),
      reference: into.zeros("kl reference", [ofKl(left).length, dims.vocab]),
    };
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    capture(ctx, stream, index.rows, copies.stream);
    capture(ctx, reference, index.edits, copies.reference);
    const plan = into.use(ctx.r.finish("edits left"));
    plan.run();
    return { items: left, rows: kept, ...copies };
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]();
  }
}

function fromLookup(item: TargetItem) {
  return { ...item, from: item.lookup };
}

function rowsOf(flat: Float32Array, width: number): Float32Array[] {
  return Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
}
