/**
 * A model on the device and its forward pass. An architecture is one file with three functions (embed,
 * block, final); spans, caches, hooks and selections are the same for all of them.
 */
import type { Gpu } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { ModelConfig } from "../io/config.ts";
import type { Tokenizer } from "../io/tokenizer.ts";
import type { Ctx } from "../ops/context.ts";
import type { Weight } from "../ops/linear.ts";
import type { Activation } from "../ops/activation.ts";
import { gatherRows } from "../ops/rows.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { KvCache, Rows, Selection } from "./rows.ts";
import type { Part } from "./parts.ts";
import { atSite, type Hooks } from "./sites.ts";

/** What a block gets beside its input. */
export interface BlockContext {
  readonly rows: Rows;
  readonly cache?: KvCache;
  readonly hooks?: Hooks;
  /** Only these rows leave the block (queries, MLP); keys and values are made for all. */
  readonly select?: Selection;
  /** What parts of the model tell each other within one pass, by part. */
  readonly notes: Map<object, Tensor>;
}

/** The functions of one architecture. */
export interface Family {
  /** ids → [R, D] */
  embed(ctx: Ctx, model: Model, rows: Rows): Tensor;
  /** The residual stream through block `layer`: [R, D] → [R, D], or → [selected, D]. */
  block(ctx: Ctx, model: Model, layer: number, h: Tensor, block: BlockContext): Tensor;
  /** The final norm. */
  final(ctx: Ctx, model: Model, h: Tensor): Tensor;
}

/** Sizes that editors and caches need, whatever the architecture. */
export interface Dimensions {
  layers: number;
  /** Residual width D. */
  width: number;
  /** MLP inner width F. */
  inner: number;
  vocab: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  maxPositions: number;
  /** Sliding attention window of each layer, where there is one. */
  windows: readonly (number | undefined)[];
}

/** A loaded model. Dispose it to free its memory. */
export interface Model extends Disposable {
  readonly gpu: Gpu;
  /** As given by the user: a path or a name. */
  readonly name: string;
  readonly config: ModelConfig;
  readonly dims: Dimensions;
  readonly family: Family;
  readonly tokenizer: Tokenizer;
  /** Linear maps by role: `layer.N.attn.q|k|v|o` (or `qkv`), `layer.N.mlp.gate|up|down`, `head`. */
  readonly weights: ReadonlyMap<string, Weight>;
  /** Norm weights and biases by role, and `embed`, `embed.positions`, `rotary`. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** What stands beside the weights, in order; see parts.ts. */
  readonly parts: Part[];
}

/** A weight by its role. @throws {GpuError} when the model has none of that name */
export function weight(model: Pick<Model, "name" | "weights">, role: string): Weight {
  const w = model.weights.get(role);
  if (!w) throw new GpuError(`${model.name} has no weight "${role}"`);
  return w;
}

/** A tensor by its role. @throws {GpuError} when the model has none of that name */
export function tensor(model: Pick<Model, "name" | "tensors">, role: string): Tensor {
  const t = model.tensors.get(role);
  if (!t) throw new GpuError(`${model.name} has no tensor "${role}"`);
  return t;
}

/** The activation of the model's MLPs, under the name that ops have for it. */
export function activationOf({ config: { activation } }: Pick<Model, "config">): Activation {
  return activation === "gelu_pytorch_tanh" ? "gelu_new" : activation;
}

/** Which part of the model to run. */
export interface Span {
  /** First layer; above 0 `input` is its residual stream. */
  from?: number;
  /** End layer, exclusive. Default all. */
  to?: number;
  /** The residual stream entering layer `from`, [R, D]. */
  input?: Tensor;
  cache?: KvCache;
  hooks?: Hooks;
  /** Rows that the last block of the model computes to the end. Ignored when `to` is not the last layer. */
  select?: Selection;
}

/** Runs layers [from, to) on the given rows; returns the residual stream after the last of them. */
export function forward(ctx: Ctx, model: Model, rows: Rows, span: Span = {}): Tensor {
  const { from = 0, to = model.dims.layers, cache, hooks, select } = span;
  if (from > 0 && !span.input) throw new GpuError(`A span from layer ${from} needs its input`);
  const notes = new Map<object, Tensor>();
  let h = span.input ?? atSite(ctx, hooks, "embed", model.family.embed(ctx, model, rows));
  for (let layer = from; layer < to; layer++) {
    const last = layer === model.dims.layers - 1;
    const chosen = last ? select : undefined;
    // Who decides by whole prompts must see all rows of its layer.
    const early = !model.parts.some(({ whole }) => whole.includes(layer));
    h = atSite(ctx, hooks, `layer.${layer}.in`, h);
    h = model.family.block(ctx, model, layer, h, {
      ...{ rows, cache, hooks, notes },
      select: early ? chosen : undefined,
    });
    if (chosen && !early) h = gatherRows(ctx, h, chosen.index);
    h = atSite(ctx, hooks, `layer.${layer}.out`, h);
  }
  return h;
}

/** The final norm of the residual stream: what the head reads. */
export function finalNorm(ctx: Ctx, model: Model, h: Tensor, hooks?: Hooks): Tensor {
  return atSite(ctx, hooks, "final", model.family.final(ctx, model, h));
}
