/**
 * Which neurons hold a fact (Dai et al. 2022, section 3.2; the numbers are those of the authors' code, guide
 * section 11): a coarse set a prompt, refined to what several prompts of the fact share, and from the facts
 * of a relation what is the relation's rather than a fact's.
 */

/** A neuron: coordinate `index` of the activation in layer `layer`. */
export interface Neuron {
  layer: number;
  index: number;
}

/** A neuron of a coarse set. */
export interface ScoredNeuron extends Neuron {
  /** Its attribution. */
  score: number;
}

/** How a coarse set is cut. */
export interface CoarseOptions {
  /** Attributions from this share of the largest on. */
  threshold: number;
  /** Leave out those at the threshold itself, as EleutherAI's code does. Default false. */
  strict?: boolean;
}

/** The neurons of one prompt whose attribution reaches the threshold, in order of layer and index. */
export function coarseSet(
  scores: readonly Float32Array[],
  { threshold, strict = false }: CoarseOptions,
): ScoredNeuron[] {
  const largest = scores.reduce((max, layer) => layer.reduce((a, b) => Math.max(a, b), max), 0);
  if (largest === 0) return [];
  const cut = largest * threshold;
  return scores.flatMap((of, layer) => {
    const found: ScoredNeuron[] = [];
    of.forEach((score, index) => {
      if (strict ? score > cut : score >= cut) found.push({ layer, index, score });
    });
    return found;
  });
}

/** How coarse sets are refined. */
export interface RefineOptions {
  /** The first share of a fact's prompts that a neuron must be in. */
  share: number;
  /** And never in fewer prompts than this. */
  minPrompts: number;
}

/** What {@link refine} finds. */
export interface Refined {
  /** By fact, neurons in the order in which prompts bring them. */
  facts: Neuron[][];
  /** The share of prompts that was used in the end. */
  share: number;
}

/** The average set of a fact should have so many neurons. */
const WANTED = { min: 2, max: 5 };
const SHARE_STEP = 0.05;
const ROUNDS = 6;

/**
 * Keeps the neurons that at least max(share · prompts, minPrompts) of a fact's prompts have. The share moves
 * by 0.05 until the facts have 2 to 5 neurons on average, in at most six rounds.
 * @param coarse the coarse set of each prompt of each fact
 */
export function refine(
  coarse: readonly (readonly (readonly Neuron[])[])[],
  options: RefineOptions,
): Refined {
  let { share } = options;
  for (let round = 1;; round++) {
    const facts = coarse.map((prompts) =>
      sharedNeurons(prompts, Math.max(share * prompts.length, options.minPrompts))
    );
    const average = facts.reduce((n, fact) => n + fact.length, 0) / facts.length;
    const move = average < WANTED.min ? -SHARE_STEP : average > WANTED.max ? SHARE_STEP : 0;
    if (move === 0 || round === ROUNDS) return { facts, share };
    share += move;
  }
}

/** Neurons that at least `least` of the sets have, in the order in which the sets bring them. */
export function sharedNeurons(sets: readonly (readonly Neuron[])[], least: number): Neuron[] {
  return [...counted(sets).values()].filter(({ count }) => count >= least).map(({ neuron }) => neuron);
}

/** The `n` neurons that most sets have: what erasing a relation takes (the authors' n is 20). */
export function mostFrequent(sets: readonly (readonly Neuron[])[], n: number): Neuron[] {
  const all = [...counted(sets).values()].sort((a, b) => b.count - a.count);
  return all.slice(0, n).map(({ neuron }) => neuron);
}

/** The relation's share from which on a neuron is the relation's and no fact's. */
const COMMON = 0.1;

/**
 * A fact's neurons without those that more than a tenth of the relation's facts have: what an edit of the one
 * fact may touch. As in the authors' code the fact itself counts once more.
 * @param facts the sets of all facts of the relation, this one among them
 */
export function ownNeurons(fact: readonly Neuron[], facts: readonly (readonly Neuron[])[]): Neuron[] {
  const counts = counted([fact, ...facts]);
  return fact.filter((neuron) => counts.get(nameOf(neuron))!.count <= COMMON * facts.length);
}

/** The name of a neuron, for tables: `L5.1203`. */
export function nameOf({ layer, index }: Neuron): string {
  return `L${layer}.${index}`;
}

function counted(sets: readonly (readonly Neuron[])[]): Map<string, { neuron: Neuron; count: number }> {
  const counts = new Map<string, { neuron: Neuron; count: number }>();
  for (const { layer, index } of sets.flat()) {
    const neuron = { layer, index }, name = nameOf(neuron);
    const known = counts.get(name) ?? { neuron, count: 0 };
    counts.set(name, known);
    known.count++;
  }
  return counts;
}
