/**
 * Neurons of a whole relation (Dai et al. 2022, sections 4 and 5.2; the numbers are those of the authors'
 * code, guide section 11): what many of its facts have in common is the relation's, what only one has is the
 * fact's.
 */
import type { Model } from "../../engine/models/model.ts";
import { attribute } from "./attribution.ts";
import type { Fact, FindOptions } from "./find.ts";
import { coarseSet, mostFrequent, type Neuron, ownNeurons, refine, sharedNeurons } from "./select.ts";

/** What {@link relationNeurons} finds. */
export interface RelationNeurons {
  facts: {
    /** P(answer) at each prompt. */
    probabilities: number[];
    /** Sizes of the prompts' coarse sets. */
    coarse: number[];
    refined: Neuron[];
    /** Without what the relation shares: what an edit of this fact may touch. */
    own: Neuron[];
  }[];
  /** Neurons that a tenth of the facts have. */
  shared: Neuron[];
  /** The neurons that most facts have, twenty at most: erasing these erases the relation. */
  frequent: Neuron[];
  /** The share of prompts that refining ended with. */
  share: number;
}

/** A tenth of a relation's facts make a neuron the relation's. */
const SHARED = 0.1;
const ERASED = 20;

/** Finds the neurons of all facts of a relation, refined with one share. Attributions are not kept. */
export async function relationNeurons(
  model: Model,
  facts: readonly Fact[],
  options: FindOptions,
): Promise<RelationNeurons> {
  const { steps, threshold } = options;
  const read: { probabilities: number[]; coarse: Neuron[][] }[] = [];
  for (const [done, { prompts, answer }] of facts.entries()) {
    const found = await attribute(model, prompts.map((ids) => ({ ids, answer })), {
      steps,
      points: "left",
      at: "key",
      onProgress: (part, whole) => options.onProgress?.(done + part / whole, facts.length),
    });
    read.push({
      probabilities: found.map(({ probability }) => probability),
      coarse: found.map(({ scores }) => coarseSet(scores, { threshold })),
    });
  }
  const { facts: refined, share } = refine(read.map(({ coarse }) => coarse), options);
  return {
    facts: read.map(({ probabilities, coarse }, f) => ({
      probabilities,
      coarse: coarse.map((set) => set.length),
      refined: refined[f],
      own: ownNeurons(refined[f], refined),
    })),
    shared: sharedNeurons(refined, SHARED * facts.length),
    frequent: mostFrequent(refined, ERASED),
    share,
  };
}
