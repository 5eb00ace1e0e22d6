/**
 * CounterFact records and ROME's scores on them (Meng et al. 2022, section 3.3; guide section 15): for each
 * prompt the length-normalised log-probabilities of the new and the true object are compared.
 *
 *   ES, PS  share of rewrite / paraphrase prompts with P(new) > P(true)
 *   NS      share of neighbourhood prompts with P(true) > P(new)
 *   EM, PM, NM  the mean differences of probabilities in the same direction
 */
import { InputError } from "../engine/io/errors.ts";
import type { Model } from "../engine/models/model.ts";
import { type EditRequest, fill, spaced, tokeniseTarget } from "../editors/requests.ts";
import { type Continuation, meanLogProb, scoreContinuations } from "./scoring.ts";

/** A record in ROME's CounterFact layout; `two_hop` is atlas' addition. */
export interface CounterFactRecord {
  case_id: number;
  requested_rewrite: {
    prompt: string;
    subject: string;
    target_new: { str: string };
    target_true: { str: string };
  };
  paraphrase_prompts: string[];
  neighborhood_prompts: string[];
  two_hop?: { prompt: string; answer_before: string; answer_after: string }[];
}

/** Scores of one record. Shares are over its prompts; `undefined` where it has no such prompt. */
export interface CounterFactScores {
  ES: number;
  PS?: number;
  NS?: number;
  EM: number;
  PM?: number;
  NM?: number;
  /** Two-hop questions whose answer after the edit is likelier than the one before. */
  twoHop?: number;
}

/** Reads a CounterFact file. @throws {InputError} when it is not one */
export async function readCounterFact(path: string): Promise<CounterFactRecord[]> {
  let records: CounterFactRecord[];
  try {
    records = JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    throw new InputError(`Cannot read ${path}: ${error instanceof Error ? error.message : error}`);
  }
  if (!Array.isArray(records) || !records.every((r) => r?.requested_rewrite?.target_new?.str)) {
    throw new InputError(`${path} is not in the CounterFact layout`);
  }
  return records;
}

/** The edit that a record asks for. */
export function requestOf({ requested_rewrite: r }: CounterFactRecord): EditRequest {
  return { prompt: r.prompt, subject: r.subject, target: r.target_new.str, true: r.target_true.str };
}

/** Scores the model as it stands on one record: all prompts in one batch. */
export async function counterFactScores(model: Model, record: CounterFactRecord): Promise<CounterFactScores> {
  const { requested_rewrite: r } = record;
  const pairs = (prompts: readonly string[]) =>
    prompts.map((prompt) => ({ prompt, a: r.target_new.str, b: r.target_true.str }));
  const rewrite = pairs([fill(r.prompt, r.subject).text]);
  const paraphrase = pairs(record.paraphrase_prompts);
  const neighbourhood = pairs(record.neighborhood_prompts);
  const hops = (record.two_hop ?? []).map((h) => ({
    prompt: h.prompt,
    a: h.answer_after,
    b: h.answer_before,
  }));
  const all = [...rewrite, ...paraphrase, ...neighbourhood, ...hops];
  const scores = await comparePairs(model, all);
  const part = (from: number, n: number) => scores.slice(from, from + n);
  const p = part(1, paraphrase.length), n = part(1 + paraphrase.length, neighbourhood.length);
  const h = part(all.length - hops.length, hops.length);
  const share = (list: Compared[], wins: (c: Compared) => boolean) =>
    list.length ? list.filter(wins).length / list.length : undefined;
  const margin = (list: Compared[], sign: number) =>
    list.length
      ? sign * list.reduce((sum, c) => sum + Math.exp(c.a) - Math.exp(c.b), 0) / list.length
      : undefined;
  const newWins = (c: Compared) => c.a > c.b;
  return {
    ES: newWins(scores[0]) ? 1 : 0,
    PS: share(p, newWins),
    NS: share(n, (c) => c.b > c.a),
    EM: margin([scores[0]], 1)!,
    PM: margin(p, 1),
    NM: margin(n, -1),
    twoHop: share(h, newWins),
  };
}

/** Mean log-probabilities of two continuations of one prompt. */
interface Compared {
  a: number;
  b: number;
}

async function comparePairs(
  model: Model,
  pairs: { prompt: string; a: string; b: string }[],
): Promise<Compared[]> {
  const { tokenizer } = model;
  const items: Continuation[] = pairs.flatMap(({ prompt, a, b }) => {
    const text = prompt.trimEnd();
    const ids = tokenizer.encode(text);
    return [a, b].map((t) => ({ prompt: ids, target: tokeniseTarget(tokenizer, { text, ids }, spaced(t)) }));
  });
  const scored = await scoreContinuations(model, items);
  return pairs.map((_, i) => ({ a: meanLogProb(scored[2 * i]), b: meanLogProb(scored[2 * i + 1]) }));
}

/** Harmonic mean of ES, PS and NS: ROME's "Score". */
export function harmonicScore(ES: number, PS: number, NS: number): number {
  return ES && PS && NS ? 3 / (1 / ES + 1 / PS + 1 / NS) : 0;
}
