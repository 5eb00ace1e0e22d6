/**
 * KE's network (De Cao et al. 2021, "Editing factual knowledge in language models"; memory-and-meta guide sections 3.2
 * and 3.4). A bidirectional LSTM reads the edit, "before >> after || input"; of its last states h a head a map makes
 * c and d [in], r_a and r_b [out] and a gate e, and
 *
 *   ΔW = η (∇W ⊙ a cᵀ + b dᵀ),   a = softmax(r_a), b = softmax(r_b), η = s σ(e)
 *
 * with ∇W = Σ δ uᵀ the gradient of the edit's loss: in factors, rows (c ⊙ u, η a ⊙ δ) and one (d, η b). Heads are two
 * weight-normed maps with a tanh between. The table of embeddings is the base model's own, which nothing trains.
 */
import { InputError } from "../../engine/io/errors.ts";
import { type Model, tensor, weight } from "../../engine/models/model.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import { joinRows, splitBlocks, splitColumns } from "../../engine/ops/columns.ts";
import {
  groupProduct,
  type LstmState,
  lstmStep,
  sigmoidGain,
  softmaxRows,
  tanh,
  weightNorm,
} from "../../engine/ops/conditioned.ts";
import { type Ctx, temp } from "../../engine/ops/context.ts";
import { fill } from "../../engine/ops/elementwise.ts";
import { embed } from "../../engine/ops/embedding.ts";
import { linear, type Weight } from "../../engine/ops/linear.ts";
import { matrixOf, type Tensor } from "../../engine/tensor/tensor.ts";
import { type Asked, type EditText, type Hypernetwork, type Numbers, TensorStore } from "./network.ts";
import { u32 } from "./texts.ts";

/** What makes a KE network. */
export interface KeShape {
  /** The edited maps, in the model's order. */
  roles: readonly string[];
  /** Width of the LSTM in each direction. */
  lstm: number;
  /** Width of h. */
  condition: number;
  /** Width between a head's two maps. */
  hidden: number;
  /** s: the gates' upper bound. */
  maxScale: number;
  /**
   * Multiplies the learning rate of the LSTM's one bias. PyTorch's has two that are added: under an optimiser that
   * looks at each number alone their sum moves twice as far.
   */
  biasRate?: number;
  seed?: number;
}

/** Token ids of what stands between the parts of a condition: " >>" and " ||". */
export interface Separators {
  to: readonly number[];
  at: readonly number[];
}

/** A network with new numbers, or with given ones. */
export function keNetwork(
  model: Model,
  { roles, lstm, condition, hidden, maxScale, biasRate = 1, seed = 0 }: KeShape,
  numbers?: Numbers,
  separators: Separators = separatorsOf(model),
): Hypernetwork {
  const store = new TensorStore(model.gpu, numbers);
  const random = seededRandom(seed);
  const table = tensor(model, "embed");
  const { cols: width } = matrixOf(table);
  /** PyTorch's own start: uniform within ±1/√fan. */
  const uniform = (name: string, shape: number[], fan: number, rate = 1) =>
    store.parameter(name, shape, () => (2 * random() - 1) / Math.sqrt(fan), rate);
  const map = (name: string, out: number, inner: number, bias = true, fan = inner, rate = 1) =>
    mapOf(
      name,
      uniform(name, [out, inner], fan),
      bias ? uniform(`${name}.bias`, [out], fan, rate) : undefined,
    );
  const directions = ["forward", "backward"].map((name) => ({
    inputs: map(`lstm.${name}.ih`, 4 * lstm, width, true, lstm, biasRate),
    states: map(`lstm.${name}.hh`, 4 * lstm, lstm, false),
    condition: map(`condition.${name}`, condition, lstm, name === "forward", 2 * lstm),
  }));
  const normed = (name: string, out: number, inner: number) => {
    const v = Float32Array.from({ length: out * inner }, () => (2 * random() - 1) / Math.sqrt(inner));
    return {
      v: store.parameter(`${name}.v`, [out, inner], (i) => v[i]),
      g: store.parameter(`${name}.g`, [out], (i) => Math.hypot(...v.subarray(i * inner, (i + 1) * inner))),
      bias: uniform(`${name}.bias`, [out], inner),
    };
  };
  const heads = new Map(roles.map((role) => {
    const { in: inner, out } = weight(model, role);
    return [role, [
      normed(`${role}.0`, hidden, condition),
      normed(`${role}.1`, 2 * (inner + out) + 1, hidden),
    ]];
  }));

  /** h [groups, condition] of the edits' texts. */
  const read = (ctx: Ctx, texts: readonly (readonly number[])[], owned: DisposableStack): Tensor => {
    const B = texts.length, T = Math.max(...texts.map((ids) => ids.length));
    const steps = Array.from({ length: T }, (_, t) => t);
    const lives = steps.map((t) => u32(ctx.gpu, owned, "live", texts.map((ids) => t < ids.length ? 1 : 0)));
    const ends = directions.map(({ inputs, states }, back) => {
      const ids = steps.flatMap((t) => texts.map((own) => own[back ? own.length - 1 - t : t] ?? 0));
      const x = embed({ gpu: ctx.gpu, r: ctx.r }, u32(ctx.gpu, owned, "condition", ids), table);
      const gates = splitBlocks(ctx, linear(ctx, x, inputs), steps.map(() => B), [4 * lstm]);
      const zero = () => {
        const t = temp(ctx, "LSTM start", [B, lstm]);
        fill(ctx, t, 0);
        return t;
      };
      let state: LstmState = { c: zero(), h: zero() };
      gates.forEach(([own], t) => {
        state = lstmStep(ctx, linear(ctx, state.h, states, { residual: own }), state, lives[t]);
      });
      return state.h;
    });
    const forward = linear(ctx, ends[0], directions[0].condition);
    return tanh(ctx, linear(ctx, ends[1], directions[1].condition, { residual: forward }));
  };

  return {
    roles,
    parameters: store.parameters,
    buffers: store.buffers,
    locAtAnswer: true,
    factors(ctx, { gradients, edits, groups, owned }: Asked) {
      const h = read(ctx, conditionsOf(edits, groups, separators), owned);
      const own = Array.from({ length: groups }, (_, group) => group);
      return new Map(roles.map((role) => {
        const { u, delta, groups: rowGroups, groupList } = gradients.get(role)!;
        const { in: inner, out } = weight(model, role);
        const [first, second] = heads.get(role)!.map(({ v, g, bias }) =>
          mapOf(role, weightNorm(ctx, v, g), bias)
        );
        const made = linear(ctx, tanh(ctx, linear(ctx, h, first)), second);
        const [c, rowA, d, rowB, e] = splitColumns(ctx, made, [inner, out, inner, out, 1]);
        const a = sigmoidGain(ctx, softmaxRows(ctx, rowA), e, maxScale);
        const b = sigmoidGain(ctx, softmaxRows(ctx, rowB), e, maxScale);
        return [role, {
          keys: joinRows(ctx, [groupProduct(ctx, u, c, rowGroups), d]),
          values: joinRows(ctx, [groupProduct(ctx, delta, a, rowGroups), b]),
          groups: u32(ctx.gpu, owned, "factor groups", [...groupList, ...own]),
        }];
      }));
    },
    [Symbol.dispose]: () => store[Symbol.dispose](),
  };
}

function mapOf(name: string, matrix: Tensor, bias?: Tensor): Weight {
  const [out, inner] = matrix.shape;
  return { role: name, name, matrix, bias, layout: "out_in", out, in: inner, overlays: [] };
}

/** "before >> after || input" of each group's one edit, as ids side by side. */
function conditionsOf(edits: readonly EditText[], groups: number, { to, at }: Separators): number[][] {
  if (edits.length !== groups) throw new InputError("KE reads one edit at a time");
  return edits.toSorted((a, b) => a.group - b.group).map(({ before = [], target, prompt }) => [
    ...[...before, ...to, ...target, ...at, ...prompt],
  ]);
}

function separatorsOf({ tokenizer }: Model): Separators {
  const ids = (text: string) => tokenizer.encode(text, { special: false });
  return { to: ids(" >>"), at: ids(" ||") };
}
