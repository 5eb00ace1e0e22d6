/**
 * Matching metrics under teacher forcing: would the model say the answer, given the answer so far? (Yang et al.
 * 2025, "The Mirage of Model Editing", calls the first the customary metric.)
 *
 *   tf.token.<kind>  mean over probes of the share of answer tokens that are the likeliest at their place
 *   tf.seq.<kind>    share of probes whose answer tokens all are
 *
 * They are given side by side because the literature calls both "accuracy". Quirks: the answer is the
 * dataset's, also for probes that should not change; nothing has to end after the answer. `tf.seq.rewrite`,
 * `.paraphrase` and `.neighbour` are the "accuracies" of MEMIT's summary script.
 */
import type { Metrics } from "../records.ts";
import { answered, type Asked, perKind, sequenceMatch, tokenShare } from "./probes.ts";

/** `tf.token.<kind>` and `tf.seq.<kind>` for every kind of probe with an answer. */
export function matchingMetrics(asked: readonly Asked[]): Metrics {
  const list = answered(asked);
  return {
    ...perKind("tf.token", list, ({ answer }) => tokenShare(answer)),
    ...perKind("tf.seq", list, ({ answer }) => sequenceMatch(answer)),
  };
}
