/**
 * An edit that leaves the weights alone: facts in a memory, each with the text that is put before a prompt about
 * it (IKE, SERAC). A prompt finds its fact by the embedding of its text; what is no fact's goes to the model as
 * it is.
 */
import type { EncoderName } from "./encoder_name.ts";
import type { SiblingName } from "./sibling.ts";

/** One fact of the memory. */
export interface Fact {
  /** What prompts about it are compared with. */
  text: string;
  /** What is put before them, as text; a blank follows it. */
  front: string;
  /** [width] of the scope's space: the embedding of `text`, made once. */
  embedding: Float32Array;
}

/** y = A(x − mean) + b: from an encoder's space to the one in which distances tell a fact's own prompts. */
export interface Projection {
  /** [in] */
  mean: Float32Array;
  /** [out, in] row-major */
  matrix: Float32Array;
  /** [out] */
  bias: Float32Array;
}

/** When a prompt is about a fact. */
export interface Scope {
  /**
   * `nearest`: the nearest fact within the limit; `always`: the nearest, however far; `gold`: the fact that
   * `gold` gives for the prompt's text, an oracle for ablations. One fact alone with `alone` is always meant.
   */
  rule: "nearest" | "always" | "gold";
  /** A memory of one fact is put before every prompt, as IKE's authors do. */
  alone: boolean;
  encoder: EncoderName;
  /** `cosine`: at least `limit`; `distance`: squared Euclidean, less than `limit`. */
  measure: "cosine" | "distance";
  limit: number;
  /**
   * With `cosine`: by how much the nearest fact must stand out from the third nearest. Cosines grow with the number
   * of facts that a prompt is compared with, and a prompt about none of them is near many. Of two facts or one, or
   * without it, the limit alone decides.
   */
  margin?: number;
  /**
   * With `distance`: no limit decides; base and answering model both answer every prompt, the latter with the
   * share e^−D of the probability (SERAC's soft weighting).
   */
  soft?: boolean;
  /** Of encoder states: what is taken off before lengths become 1 (`cosine`). */
  mean?: Float32Array;
  /** Trained; see SERAC. */
  projection?: Projection;
}

/** Facts and the rule that tells whose a prompt is. */
export interface PromptEdit {
  scope: Scope;
  facts: Fact[];
  /** What answers prompts in scope: the model itself, or with an editor's adapter, or another model; see SERAC. */
  answers:
    | { kind: "base" }
    | { kind: "adapter"; editor: string; hash: string }
    | { kind: "sibling" } & SiblingName;
  /** Prompts in scope by text, for the rule `gold`: the fact's number. Not saved. */
  gold?: ReadonlyMap<string, number>;
}

/**
 * Two memories as one; of facts with the same text the later one stays.
 * @returns undefined when they do not go together: another encoder, rule or answering model
 */
export function joinPrompts(a: PromptEdit, b: PromptEdit): PromptEdit | undefined {
  if (!sameKind(a, b)) return undefined;
  const later = new Set(b.facts.map(({ text }) => text));
  const kept = a.facts.map(({ text }, i) => ({ i, stays: !later.has(text) })).filter(({ stays }) => stays);
  const place = new Map(kept.map(({ i }, at) => [i, at]));
  const gold = new Map<string, number>();
  for (const [prompt, fact] of a.gold ?? []) if (place.has(fact)) gold.set(prompt, place.get(fact)!);
  for (const [prompt, fact] of b.gold ?? []) gold.set(prompt, kept.length + fact);
  return { ...b, facts: [...kept.map(({ i }) => a.facts[i]), ...b.facts], ...gold.size ? { gold } : {} };
}

function sameKind(a: PromptEdit, b: PromptEdit): boolean {
  const settings = ({ scope: { mean: _, projection: __, ...rest }, answers }: PromptEdit) =>
    JSON.stringify([rest, answers]);
  const numbers = ({ scope: { mean, projection: p } }: PromptEdit) => [mean, p?.mean, p?.matrix, p?.bias];
  const others = numbers(b);
  return settings(a) === settings(b) && numbers(a).every((x, i) => equalRows(x, others[i]));
}

function equalRows(x: Float32Array | undefined, y: Float32Array | undefined): boolean {
  return x === y || (x?.length === y?.length && x!.every((value, i) => value === y![i]));
}
