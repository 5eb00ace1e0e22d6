/**
 * Trains SERAC as EasyEdit does, which is another method (guide section 6.5): no objective for the classifier, but
 *
 *   0.1 · NLL of the mixture on the edit itself + KL(base ‖ mixture) on a prompt that must stay,
 *
 * the mixture being (1 − s)·base + s·counterfactual with s = e^−D of what is asked and the edit. The classifier's
 * projection and the counterfactual model's adapter learn together, and the former only through s. As in EasyEdit
 * the classifier sees what is asked with its answer, and the edit without; each example has a memory of its own,
 * which is EasyEdit's batch of 1 with gradients gathered over a batch.
 */
import { finalNorm, forward, type Model, weight } from "../../engine/models/model.ts";
import { packRows, selectRows } from "../../engine/models/rows.ts";
import { type Ctx, Tape, temp } from "../../engine/ops/context.ts";
import { fill } from "../../engine/ops/elementwise.ts";
import { linear } from "../../engine/ops/linear.ts";
import { mixtureLoss } from "../../engine/ops/mixture_loss.ts";
import { groupMean } from "../../engine/ops/rows.ts";
import { scopeLoss } from "../../engine/ops/scope_loss.ts";
import { logits, logSoftmax } from "../../engine/ops/vocab_loss.ts";
import { createTensor, freeTensor, reshape, type Tensor } from "../../engine/tensor/tensor.ts";
import { fromHost, readF32 } from "../../engine/tensor/transfer.ts";
import type { WeightDelta } from "../edit.ts";
import { lora, loraStart, type LowRankAdaptation } from "../finetune/lora.ts";
import type { Projection } from "../prompts/edit.ts";
import { optimiser } from "./adam.ts";
import { type Course, follow } from "./course.ts";
import type { Pair } from "./data.ts";
import { type AdapterTraining, CLIP, FACTOR, schedule } from "./train_adapter.ts";
import { type ScopeMap, scopeMap } from "./train_scope.ts";

/** How to train; `lr` is the adapter's and the projection's alike. */
export interface MixtureTraining extends Omit<AdapterTraining, "onBest"> {
  /** Width of the space in which distances are taken. */
  width: number;
  /** Weight of the edit's loss, and of the locality's. */
  cedit: number;
  cloc: number;
  /** Where the adapter starts: one that can read edits already, as EasyEdit's small language models can. */
  start?: readonly WeightDelta[];
  /** Called with every pair of parts that is the best so far. */
  onBest?: (made: Mixture, course: Course) => Promise<void>;
}

/** Both parts. */
export interface Mixture {
  projection: Projection;
  adapter: WeightDelta[];
}

/** An example with the places of its texts among the embeddings. */
export interface PlacedPair extends Pair {
  rows: { edit: number; asked: number; other: number };
}

/**
 * Trains both parts on pairs in order, again from the first after the last, and keeps those that were best on the
 * held pairs.
 * @param embeddings of all texts, [texts, inner]
 * @throws {PartDivergedError} when a value is not finite
 */
export async function trainMixture(
  model: Model,
  embeddings: Float32Array,
  inner: number,
  pairs: readonly PlacedPair[],
  held: readonly PlacedPair[],
  options: MixtureTraining,
): Promise<Mixture & { course: Course }> {
  const { gpu } = model;
  const { rank, width, steps, batch, lr, seed, start, onBest } = options;
  const maps = [...model.weights.values()].filter(({ role }) => role.startsWith("layer."));
  const factors = start?.map((delta) => ({ ...delta, left: delta.left.map((x) => x / FACTOR) })) ??
    loraStart(maps, rank, seed);
  using owned = new DisposableStack();
  const adaptation = owned.use(lora(model, factors, { rank, lora_alpha: FACTOR * rank }));
  const map = owned.use(scopeMap(gpu, embeddings, inner, width, seed));
  const adam = owned.use(optimiser(gpu, [...adaptation.parameters, ...map.parameters]));
  const loss = owned.adopt(createTensor(gpu, "mixture loss", [1, 1]), (t) => freeTensor(gpu, t));
  const parts: Parts = { model, adaptation, map, inner, loss, ...options };
  const made = async () => ({ projection: await map.projection(), adapter: await adaptation.deltas() });
  const course = await follow(gpu, {
    name: "mixture",
    optimiser: adam,
    loss,
    step(index) {
      const of = (i: number) => pairs[(index * batch + i) % pairs.length];
      using work = new Work(parts, Array.from({ length: batch }, (_, i) => of(i)));
      const tape = new Tape();
      const ctx: Ctx = { gpu, r: gpu.recorder(), tape };
      adam.require(ctx);
      work.record(ctx);
      tape.backward();
      adam.step(ctx, loss, lr * schedule(index, steps), CLIP);
      using plan = ctx.r.finish("mixture step");
      plan.run();
    },
    held: () => lossOf(parts, held, batch),
  }, { ...options, onBest: async (course) => await onBest?.(await made(), course) });
  return { ...await made(), course };
}

interface Parts extends Pick<MixtureTraining, "cedit" | "cloc"> {
  model: Model;
  adaptation: LowRankAdaptation;
  map: ScopeMap;
  inner: number;
  /** f32 [1, 1], of the last batch. */
  loss: Tensor;
}

/** The loss of pairs, without a step; every batch counts the same. */
async function lossOf(parts: Parts, pairs: readonly PlacedPair[], batch: number): Promise<number> {
  const { gpu } = parts.model;
  let sum = 0, batches = 0;
  for (let first = 0; first < pairs.length; first += batch, batches++) {
    using work = new Work(parts, pairs.slice(first, first + batch));
    const ctx: Ctx = { gpu, r: gpu.recorder() };
    work.record(ctx);
    using plan = ctx.r.finish("mixture validation");
    plan.run();
    sum += (await readF32(gpu, parts.loss))[0];
  }
  return sum / batches;
}

/** One batch: rows that are asked for the edit, then rows that must stay. */
class Work implements Disposable {
  #parts: Parts;
  #pairs: readonly PlacedPair[];
  #owned = new DisposableStack();

  constructor(parts: Parts, pairs: readonly PlacedPair[]) {
    this.#parts = parts;
    this.#pairs = pairs;
  }

  #own(t: Tensor): Tensor {
    return this.#owned.adopt(t, () => freeTensor(this.#parts.model.gpu, t));
  }

  record(ctx: Ctx): void {
    const { model, adaptation, map, inner, cedit, cloc } = this.#parts;
    const { gpu, dims } = model;
    // Of the edit the answer's tokens are scored, of what must stay all tokens (EasyEdit's mask).
    const places = [
      ...this.#pairs.map(({ asked, rows }) => ({
        ...asked,
        plain: [...asked.prompt, ...asked.target.slice(0, -1)],
        scored: asked.target,
        of: { test: rows.asked, memory: rows.edit },
      })),
      ...this.#pairs.map(({ other, rows }) => {
        const plain = [...other.prompt, ...other.target];
        return { ...other, plain, scored: plain, of: { test: rows.other, memory: rows.edit } };
      }),
    ];
    const count = places.reduce((n, { scored }) => n + scored.length, 0);
    const edited = this.#pairs.reduce((n, { asked }) => n + asked.target.length, 0);
    const zs = (ctx: Ctx, of: Model, sequences: { ids: number[] }[]) => {
      const packing = { windows: dims.windows };
      const rows = this.#owned.use(packRows(gpu, sequences, packing));
      const chosen = places.flatMap(({ scored }, i) =>
        scored.map((_, t) => rows.rowOf(i, sequences[i].ids.length - scored.length + t))
      );
      const select = this.#owned.use(selectRows(gpu, rows, chosen, sequences, packing));
      return logits(ctx, finalNorm(ctx, of, forward(ctx, of, rows, { select })), weight(of, "head"));
    };
    const base = temp(ctx, "base log-probabilities", [count, dims.vocab]);
    logSoftmax(
      ctx,
      zs({ ...ctx, tape: undefined }, model, places.map(({ plain }) => ({ ids: plain }))),
      base,
    );
    const placed = adaptation.place(ctx);
    const z = zs(ctx, placed, places.map(({ front, plain }) => ({ ids: [...front, ...plain] })));

    const side = (name: string, of: "test" | "memory") => {
      const values = new Float32Array(count * inner);
      let row = 0;
      for (const place of places) {
        const from = place.of[of] * inner;
        for (const _ of place.scored) values.set(map.whitened.subarray(from, from + inner), row++ * inner);
      }
      return linear(ctx, this.#own(fromHost(gpu, name, [count, inner], values)), map.weight);
    };
    const constant = (name: string, value: number) =>
      this.#own(fromHost(gpu, name, [count], new Float32Array(count).fill(value)));
    const ones = constant("ones", 1);
    const distance = scopeLoss(ctx, {
      a: side("asked", "test"),
      b: side("edits", "memory"),
      positive: this.#own(fromHost(gpu, "all", [count], new Uint32Array(count).fill(1))),
      weights: ones,
    });
    const loss = mixtureLoss(ctx, {
      base,
      z,
      distance,
      targets: this.#own(
        fromHost(gpu, "targets", [count], Uint32Array.from(places.flatMap(({ scored }) => scored))),
      ),
      weights: this.#own(
        fromHost(
          gpu,
          "loss weights",
          [count],
          Float32Array.from(
            { length: count },
            (_, r) => r < edited ? cedit / edited : cloc / (count - edited),
          ),
        ),
      ),
      klStart: edited,
    });
    const group = this.#own(fromHost(gpu, "one group", [count], new Uint32Array(count)));
    groupMean(ctx, reshape(loss, [count, 1]), group, ones, this.#parts.loss);
    if (!ctx.tape) return;
    const seed = temp(ctx, "d loss", [count]);
    fill(ctx, seed, 1);
    ctx.tape.setGrad(loss, seed);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
