/** Scopes by the cosine of an encoder's embeddings, where nothing was trained (IKE, ICE, SERAC without an editor). */
import type { Model } from "../../engine/models/model.ts";
import { type Corpus, openCorpus } from "../ike_corpus.ts";
import type { Scope } from "./edit.ts";
import { type Encoder, encoderNamed } from "./encoders.ts";
import { requireComparable } from "./scope.ts";

/**
 * Calibrated limits: the cosine that tells rewordings of a fact from prompts about its neighbours best, and how far
 * the fact must stand out from the third nearest of many, on records of a training file; tools/ike_limit.ts prints
 * them.
 */
const LIMITS = { sentence: 0.44, states: 0.64 };
const MARGINS = { sentence: 0.18, states: undefined };

/** Hyper-parameters that decide it. */
export interface CosineSettings {
  /** As {@link encoderNamed} takes it. */
  encoder: string;
  limit?: number;
  margin?: number;
  corpus?: string;
  corpus_skip: number;
}

/**
 * The encoder, the corpus where one is given, and the scope's numbers.
 * @param compared are texts compared with facts at all? Then states need a corpus to be centred on
 * @throws {InputError} when they have none, or the encoder or the corpus cannot be read
 */
export async function cosineScope(
  model: Model,
  { encoder: name, limit, margin, corpus: path, corpus_skip }: CosineSettings,
  compared: boolean,
): Promise<{ encoder: Encoder; corpus?: Corpus; measured: Omit<Scope, "rule" | "alone"> }> {
  const encoder = await encoderNamed(model, name);
  const corpus = path === undefined ? undefined : await openCorpus(encoder, path, corpus_skip, model.name);
  const apart = margin ?? MARGINS[encoder.name.kind];
  const measured = {
    encoder: encoder.name,
    measure: "cosine" as const,
    limit: limit ?? LIMITS[encoder.name.kind],
    ...apart !== undefined ? { margin: apart } : {},
    ...corpus?.mean ? { mean: corpus.mean } : {},
  };
  if (compared) requireComparable(measured);
  return { encoder, corpus, measured };
}
