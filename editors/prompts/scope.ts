/** Which fact of a memory a text is about: embeddings, distances, limits. All on the host, for memories are small. */
import { InputError } from "../../engine/io/errors.ts";
import type { Fact, Projection, PromptEdit, Scope } from "./edit.ts";
import { centred, type Encoder } from "./encoders.ts";

/** The fact that a text is nearest to. */
export interface Match {
  /** The fact's number. */
  fact: number;
  /** Cosine, or squared Euclidean distance. */
  value: number;
  /** Is the text about it? */
  inScope: boolean;
}

/** Refuses to compare states that nothing was taken off: all their cosines are near 1. */
export function requireComparable(
  { measure, encoder, mean }: Pick<Scope, "measure" | "encoder" | "mean">,
): void {
  if (measure !== "cosine" || encoder.kind !== "states" || mean) return;
  throw new InputError("States need a corpus to be centred on", { hint: "Give one with --set corpus=FILE" });
}

/** Texts in the scope's space, [texts, width] row-major. */
export async function place(
  encoder: Encoder,
  scope: Pick<Scope, "measure" | "mean" | "projection">,
  texts: readonly string[],
): Promise<Float32Array> {
  const { measure, mean, projection } = scope;
  const values = await encoder.embed(texts);
  if (projection) return project(values, projection);
  if (measure === "distance") return values;
  return centred(values, encoder.width, mean ?? new Float32Array(encoder.width));
}

/** A(x − mean) + b of every row. */
export function project(values: Float32Array, { mean, matrix, bias }: Projection): Float32Array {
  const [inner, out] = [mean.length, bias.length];
  const rows = values.length / inner;
  const y = new Float32Array(rows * out);
  const x = new Float32Array(inner);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < inner; i++) x[i] = values[row * inner + i] - mean[i];
    for (let o = 0; o < out; o++) {
      let sum = bias[o];
      for (let i = 0, at = o * inner; i < inner; i++, at++) sum += matrix[at] * x[i];
      y[row * out + o] = sum;
    }
  }
  return y;
}

/**
 * The nearest fact of each text; undefined when there are none.
 * @param texts their embeddings, [texts, width]
 */
export function nearestFacts(
  { facts, scope: { measure, limit, margin = -Infinity } }: Pick<PromptEdit, "facts" | "scope">,
  texts: Float32Array,
): (Match | undefined)[] {
  if (facts.length === 0) return [];
  const width = facts[0].embedding.length;
  return Array.from({ length: texts.length / width }, (_, row) => {
    const e = texts.subarray(row * width, (row + 1) * width);
    if (measure === "distance") {
      const [fact, value] = least(facts, e);
      return { fact, value, inScope: value < limit };
    }
    const { fact, cosines: [value, , third] } = most(facts, e);
    return { fact, value, inScope: value >= limit && value - third >= margin };
  });
}

/** The nearest fact, and the cosines of the three nearest; −∞ where there are fewer. */
function most(facts: readonly Fact[], e: Float32Array): { fact: number; cosines: number[] } {
  let best = 0;
  const top = [-Infinity, -Infinity, -Infinity];
  facts.forEach(({ embedding }, fact) => {
    let dot = 0;
    for (let i = 0; i < e.length; i++) dot += e[i] * embedding[i];
    // Later facts win over equal earlier ones.
    const place = top.findIndex((other) => dot >= other);
    if (place < 0) return;
    if (place === 0) best = fact;
    top.splice(place, 0, dot);
    top.pop();
  });
  return { fact: best, cosines: top };
}

function least(facts: readonly Fact[], e: Float32Array): [fact: number, distance: number] {
  let best = 0, low = Infinity;
  facts.forEach(({ embedding }, fact) => {
    let sum = 0;
    for (let i = 0; i < e.length; i++) sum += (e[i] - embedding[i]) ** 2;
    if (sum <= low) [best, low] = [fact, sum];
  });
  return [best, low];
}
