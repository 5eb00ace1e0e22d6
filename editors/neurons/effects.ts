/**
 * What neurons do to a fact and to everything else: suppressed, amplified, with erased or rewritten value
 * slots (Dai et al. 2022, sections 4.2 and 5; the authors compare with facts of other relations).
 */
import type { Model } from "../../engine/models/model.ts";
import { applyDeltas, type WeightDelta } from "../edit.ts";
import type { Question } from "./clean.ts";
import { AMPLIFY, type Prediction, predictWith, SUPPRESS } from "./interventions.ts";
import type { Neuron } from "./select.ts";

/** The probability of a token before and after, with what the model says after. */
export interface Change {
  token: number;
  before: number;
  after: number;
  says: number;
}

/** The effect of one operation. */
export interface Effect {
  name: string;
  /** P(answer) at each of the fact's prompts. */
  facts: Change[];
  /** P(target) at the same prompts, where there is a target. */
  targets: Change[];
  /** At each unrelated prompt the probability of what the model says there as it is. */
  unrelated: Change[];
}

/** What is looked at. */
export interface EffectQuestions {
  /** The fact's prompts with its answer. */
  facts: readonly Question[];
  /** The token that an update writes. */
  target?: number;
  /** Token ids of unrelated prompts. */
  unrelated: readonly (readonly number[])[];
}

/**
 * Measures suppressing and amplifying neurons, and changes of weights by name. The model is left as it was.
 * Waits for the GPU once an operation, and twice for the model as it is.
 */
export async function effectsOf(
  model: Model,
  neurons: readonly Neuron[],
  asked: EffectQuestions,
  edits: Record<string, readonly WeightDelta[]>,
): Promise<Effect[]> {
  const { facts, target, unrelated } = asked;
  const plain = unrelated.length
    ? await predictWith(model, unrelated.map((ids) => ({ ids, answer: 0 })), [], 1)
    : [];
  const questions = [
    ...facts,
    ...target === undefined ? [] : facts.map(({ ids }) => ({ ids, answer: target })),
    ...unrelated.map((ids, i) => ({ ids, answer: plain[i].says })),
  ];
  const before = await predictWith(model, questions, [], 1);
  const effect = (name: string, after: readonly Prediction[]): Effect => {
    const changes = after.map(({ probability, says }, i) => (
      { token: questions[i].answer, before: before[i].probability, after: probability, says }
    ));
    return {
      name,
      facts: changes.slice(0, facts.length),
      targets: changes.slice(facts.length, changes.length - unrelated.length),
      unrelated: changes.slice(changes.length - unrelated.length),
    };
  };
  const effects = [
    effect("suppress", await predictWith(model, questions, neurons, SUPPRESS)),
    effect("amplify", await predictWith(model, questions, neurons, AMPLIFY)),
  ];
  for (const [name, deltas] of Object.entries(edits)) {
    using _applied = applyDeltas(model, deltas);
    effects.push(effect(name, await predictWith(model, questions, [], 1)));
  }
  return effects;
}

/** The mean change over the mean before, as the authors report it: −0.3 is a loss of 30 %. */
export function relativeChange(changes: readonly Change[]): number {
  const sum = (of: (c: Change) => number) => changes.reduce((total, c) => total + of(c), 0);
  return sum(({ before, after }) => after - before) / sum(({ before }) => before);
}
