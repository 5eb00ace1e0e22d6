/**
 * From prompts and an answer to neurons: the authors' way, and the way of the code that editing tables call
 * KN (guide sections 11.1 and 11.2).
 */
import { generate } from "../../engine/models/generate.ts";
import type { Model } from "../../engine/models/model.ts";
import { attribute, type Attribution } from "./attribution.ts";
import type { Question } from "./clean.ts";
import {
  coarseSet,
  type Neuron,
  refine,
  type RefineOptions,
  type ScoredNeuron,
  sharedNeurons,
} from "./select.ts";

/** What was found for one prompt. */
export interface PromptNeurons extends Attribution {
  /** The coarse set. */
  coarse: ScoredNeuron[];
}

/** A fact: several prompts that ask for one answer. */
export interface Fact {
  /** Token ids of each prompt. */
  prompts: readonly (readonly number[])[];
  /** The answer's token; of longer answers the first. */
  answer: number;
}

/** What was found for one fact. */
export interface FactNeurons {
  prompts: PromptNeurons[];
  /** Neurons that enough of the prompts share. */
  refined: Neuron[];
}

/** Settings of the authors' search. */
export interface FindOptions extends RefineOptions {
  /** Points of the integral. */
  steps: number;
  /** Share of the largest attribution from which on a neuron is in a prompt's coarse set. */
  threshold: number;
  onProgress?: (done: number, total: number) => void;
}

/** What {@link findNeurons} finds. */
export interface Found {
  facts: FactNeurons[];
  /** The share of prompts that refining ended with. */
  share: number;
}

/** The authors' knowledge neurons of facts; facts that are given together are refined with one share. */
export async function findNeurons(
  model: Model,
  facts: readonly Fact[],
  options: FindOptions,
): Promise<Found> {
  const { steps, threshold, onProgress } = options;
  const questions = facts.flatMap(({ prompts, answer }) => prompts.map((ids) => ({ ids, answer })));
  const found = await attribute(model, questions, { steps, points: "left", at: "key", onProgress });
  const prompts = found.map((a) => ({ ...a, coarse: coarseSet(a.scores, { threshold }) }));
  const ends = facts.map((_, f) => facts.slice(0, f + 1).reduce((n, fact) => n + fact.prompts.length, 0));
  const ofFact = ends.map((end, f) => prompts.slice(end - facts[f].prompts.length, end));
  const refined = refine(ofFact.map((of) => of.map(({ coarse }) => coarse)), options);
  return {
    facts: ofFact.map((prompts, f) => ({ prompts, refined: refined.facts[f] })),
    share: refined.share,
  };
}

/** Settings of EasyEdit's search, under the names of its files. */
export interface EasyEditOptions {
  steps: number;
  adaptive_threshold: number;
  /** Whether neurons must be shared by prompts; false in all of EasyEdit's files. */
  refine: boolean;
  /** With `refine`: in more than this share of the prompts. */
  p: number;
  onProgress?: (done: number, total: number) => void;
}

/**
 * EasyEdit's neurons: coordinates of the pre-activation, points from 0 to 1 with both ends, attributions
 * averaged over the answer's tokens. Its code means to lengthen the prompt by what the model says between
 * two tokens of the answer, and does so for LLaMA-like models; for GPT-2 it asks for all of them after the
 * prompt itself.
 * @param prompts token ids
 * @param answer ids of the answer
 */
export async function findEasyEdit(
  model: Model,
  prompts: readonly (readonly number[])[],
  answer: readonly number[],
  options: EasyEditOptions,
): Promise<FactNeurons> {
  const { steps, adaptive_threshold: threshold, onProgress } = options;
  const more = answer.length - 1;
  const lengthened = model.config.type !== "gpt2" && more > 0;
  const said = lengthened
    ? await generate(model, prompts, { maxTokens: more, stop: [] })
    : prompts.map(() => []);
  const questions: Question[] = prompts.flatMap((ids, i) =>
    answer.map((token, t) => ({ ids: [...ids, ...said[i].slice(0, t)], answer: token }))
  );
  const found = await attribute(model, questions, {
    steps,
    points: "both-ends",
    at: "pre-activation",
    onProgress,
  });
  const averaged = prompts.map((_, i) => {
    const tokens = found.slice(i * answer.length, (i + 1) * answer.length);
    const scores = meanScores(tokens);
    return { ...tokens[0], scores, coarse: coarseSet(scores, { threshold, strict: true }) };
  });
  const least = options.refine ? Math.floor(options.p * prompts.length) + 1 : 1;
  return { prompts: averaged, refined: sharedNeurons(averaged.map(({ coarse }) => coarse), least) };
}

function meanScores(parts: readonly Attribution[]): Float32Array[] {
  return parts[0].scores.map((first, layer) =>
    first.map((_, i) => parts.reduce((sum, { scores }) => sum + scores[layer][i], 0) / parts.length)
  );
}
