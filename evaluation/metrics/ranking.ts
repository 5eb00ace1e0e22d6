/**
 * Ranking metrics: is the wanted continuation likelier than its rival? (Meng et al. 2022, "Locating and Editing
 * Factual Associations in GPT", section 3.3; code: kmeng01/rome, experiments/summarize.py.)
 *
 *   P(q, c) = exp(mean over the tokens of c of log p(token | q, earlier tokens))
 *   ES, PS, NS  share of rewrite, paraphrase, neighbourhood prompts with P(answer) > P(rival)
 *   EM, PM, NM  mean of P(answer) − P(rival) over the same prompts: magnitudes, not exact matches
 *   Score       harmonic mean of mean ES, PS and NS
 *
 * A neighbour's answer is the old object and its rival the new one, so the test is the same everywhere. Quirks:
 * P is the geometric mean of token probabilities, so a long name is not punished for its length; the joint
 * probability is there as `rank.joint`. The comparison is strict: a tie fails for the edit and for locality.
 */
import type { Forced, Metrics } from "../records.ts";
import { answered, type Asked, overall, perKind } from "./probes.ts";

interface Contest extends Asked {
  answer: Forced;
  rival: Forced;
}

/** `ES`, `EM`, `PS`, `PM`, `NS`, `NM`, `rank.<kind>`, `rank.joint.<kind>`, for probes that have a rival. */
export function rankingMetrics(asked: readonly Asked[]): Metrics {
  const contests = answered(asked).flatMap((a): Contest[] => {
    const { rival } = a.after;
    return rival?.tokens.length ? [{ ...a, rival }] : [];
  });
  const of = (kind: string) => contests.filter(({ probe }) => probe.kind === kind);
  const wins = ({ answer, rival }: Contest) => +(meanLog(answer) > meanLog(rival));
  const margin = ({ answer, rival }: Contest) => Math.exp(meanLog(answer)) - Math.exp(meanLog(rival));
  return {
    ...overall("ES", of("rewrite"), wins),
    ...overall("EM", of("rewrite"), margin),
    ...overall("PS", of("paraphrase"), wins),
    ...overall("PM", of("paraphrase"), margin),
    ...overall("NS", of("neighbour"), wins),
    ...overall("NM", of("neighbour"), margin),
    ...perKind("rank", contests, wins),
    ...perKind("rank.joint", contests, ({ answer, rival }) => +(sumLog(answer) > sumLog(rival))),
  };
}

/** Harmonic mean of ES, PS and NS, each a mean over cases: the "Score" of ROME's tables. 0 if one of them is 0. */
export function harmonicScore(ES: number, PS: number, NS: number): number {
  return ES && PS && NS ? 3 / (1 / ES + 1 / PS + 1 / NS) : 0;
}

function sumLog({ logProbs }: Forced): number {
  return logProbs.reduce((sum, x) => sum + x, 0);
}

function meanLog(forced: Forced): number {
  return sumLog(forced) / forced.logProbs.length;
}
