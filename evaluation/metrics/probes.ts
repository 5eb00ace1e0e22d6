/**
 * What all metric families read: a probe with what the model said to it before and after the edit, and the
 * few ways of averaging over probes.
 */
import type { Probe } from "../cases.ts";
import type { Forced, Metrics, Reading, Readings } from "../records.ts";

/** A probe with its readings. For scores of the unedited model, `after` is `before`. */
export interface Asked {
  probe: Probe;
  before: Reading;
  after: Reading;
}

/** A probe whose first answer was teacher-forced, with at least one token. */
export interface Answered extends Asked {
  answer: Forced;
}

/** Mean of a list that is not empty. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

/** Puts probes and readings side by side. */
export function ask(probes: readonly Probe[], before: Readings, after: Readings): Asked[] {
  return probes.map((probe, i) => ({
    probe,
    before: before.probes[i] ?? {},
    after: after.probes[i] ?? {},
  }));
}

/** The probes that were answered under teacher forcing; an answer without tokens says nothing. */
export function answered(asked: readonly Asked[]): Answered[] {
  return asked.flatMap((a) => {
    const { answer } = a.after;
    return answer?.tokens.length && a.probe.kind !== "generation" ? [{ ...a, answer }] : [];
  });
}

/** Groups in the order in which they first occur. */
export function groupBy<Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    groups.set(key, [...groups.get(key) ?? [], item]);
  }
  return groups;
}

/** `prefix.<kind>`: the mean over each kind of probe. */
export function perKind<A extends Asked>(
  prefix: string,
  asked: readonly A[],
  score: (a: A) => number,
): Metrics {
  const kinds = groupBy(asked, ({ probe }) => probe.kind);
  return Object.fromEntries([...kinds].map(([kind, list]) => [`${prefix}.${kind}`, mean(list.map(score))]));
}

/** `name`: the mean over all of them, or nothing where there is none. */
export function overall<A extends Asked>(
  name: string,
  asked: readonly A[],
  score: (a: A) => number,
): Metrics {
  return asked.length ? { [name]: mean(asked.map(score)) } : {};
}

/** Share of a continuation's tokens that are the likeliest ones at their places. */
export function tokenShare({ tokens, argmax }: Forced): number {
  return tokens.filter((id, i) => id === argmax[i]).length / tokens.length;
}

/**
 * 1 when every token is the likeliest one at its place, else 0. As teacher forcing and greedy decoding part
 * only after the first miss, this is whether the greedy continuation starts with these tokens.
 */
export function sequenceMatch(forced: Forced): number {
  return tokenShare(forced) === 1 ? 1 : 0;
}

/** Share of places at which two readings of one answer have the same likeliest token. */
export function agreement(before: Forced, after: Forced): number {
  return after.argmax.filter((id, i) => id === before.argmax[i]).length / after.argmax.length;
}
