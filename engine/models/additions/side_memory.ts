/**
 * Side memories beside a linear map (WISE; Wang et al. 2024): changes Δ of its matrix W, of which a text gets one
 * or none. A memory's score for a prompt is how far it moves the map's output o = W x + b,
 *
 *   D = mean over the prompt's tokens of ‖φ(o + Δ x) − φ(o)‖          φ the model's activation
 *
 * or, as in the authors' code, its maximum where the prompt has more than 100 tokens. The memory of the largest D
 * among those that reach `ratio` times the D of their own edits answers the prompt and all that follows; a prompt
 * that reaches none keeps every bit.
 *
 * | tensor | shape | |
 * | --- | --- | --- |
 * | `delta` | [n, …as the matrix is stored] | Δ |
 * | `scope` | [n] | the least D among the memory's edits |
 *
 * The settings are `activation` and `ratio`. (The paper has no φ; the code has, and puts it after the map.)
 */
import { GpuError } from "../../gpu/errors.ts";
import type { Activation } from "../../ops/activation.ts";
import { type Ctx, temp } from "../../ops/context.ts";
import { add } from "../../ops/elementwise.ts";
import { linear, type Weight } from "../../ops/linear.ts";
import { chooseRows } from "../../ops/lookup.ts";
import { activatedDistance, largestAbove, spanScores } from "../../ops/side_memory.ts";
import { freeTensor, type Tensor } from "../../tensor/tensor.ts";
import { fromHost } from "../../tensor/transfer.ts";
import { type Model, weight } from "../model.ts";
import type { Applied, Part } from "../parts.ts";
import type { Addition } from "./addition.ts";
import { decideOnce } from "./codebook.ts";

/** Prompt tokens from which on only the farthest one counts. */
const LONG = 100;
/** All rows of a text, as the bits of PromptRows.place. */
const ALL = 7;

/** The memories on the device. @throws {GpuError} when they do not fit the matrix */
export function sideMemory(model: Model, addition: Addition): Part {
  const { role, settings, entries } = addition;
  const { gpu } = model;
  const w = weight(model, role);
  const owned = new Map<string, Tensor>();
  const put = (name: string, shape: readonly number[], values: Float32Array) => {
    const t = fromHost(gpu, `side memory ${name} of ${role}`, shape, values, { owner: "overlays" });
    owned.set(name, t);
    return t;
  };
  const { shape } = w.matrix;
  const numbers = addition.tensors.get("delta"), scope = addition.tensors.get("scope");
  const wanted = [entries.length, ...shape].join(", ");
  if (numbers?.shape.join(", ") !== wanted || scope?.shape.join() !== `${entries.length}`) {
    throw new GpuError(
      `The side memory at ${role} has delta [${
        numbers?.shape.join(", ") ?? ""
      }]; ${model.name} takes [${wanted}]`,
    );
  }
  const size = numbers.values.length / entries.length;
  const memories = entries.map((_, i) =>
    changeOf(w, put(`${i}`, shape, numbers.values.subarray(i * size, (i + 1) * size)))
  );
  const ratio = settings.ratio as number, kind = settings.activation as Activation;
  const threshold = put("threshold", [entries.length], scope.values.map((least) => least * ratio));
  const self = {};
  const beside = (ctx: Ctx, { x, y, residual, block: { rows, cache } }: Applied) => {
    const prompts = rows.prompts();
    const deltas = memories.map((memory) => linear(ctx, x, memory));
    const choice = decideOnce(ctx, self, prompts, cache, (into) => {
      if (prompts.live !== "whole") {
        throw new GpuError(
          `The side memory at ${role} decides by whole prompts, and a part of one is cached`,
        );
      }
      const d = temp(ctx, "distances", [x.shape[0], memories.length]);
      deltas.forEach((delta, column) =>
        void activatedDistance(ctx, { y, residual, delta, kind }, { d, column })
      );
      largestAbove(ctx, spanScores(ctx, d, prompts, LONG), threshold, into);
    });
    const { sequence, place } = prompts;
    return deltas.reduce(
      (z, delta, which) =>
        chooseRows(ctx, z, add(ctx, y, delta), { choice, sequence, place, places: ALL, which }),
      y,
    );
  };
  return {
    at: new Map([[role, beside]]),
    whole: [Number(role.split(".")[1])],
    tensors: owned,
    [Symbol.dispose]() {
      owned.forEach((t) => freeTensor(gpu, t));
      owned.clear();
    },
  };
}

/** A change of a map as a map, x → Δ x. */
export function changeOf(w: Weight, delta: Tensor): Weight {
  return { ...w, role: `${w.role}.change`, matrix: delta, bias: undefined, overlays: [] };
}
