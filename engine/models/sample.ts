/**
 * Choosing a token from logits on the host, in f64: temperature, top-k, top-p, seeded. With few tokens to
 * choose from the device does the same (`ops/sample.ts`).
 */

/** Sampling settings. All of them together: top-k first, then top-p, on the tempered distribution. */
export interface Sampling {
  /** 0 or absent: greedy. */
  temperature?: number;
  /** Keep the k likeliest tokens. */
  topK?: number;
  /** Keep the likeliest tokens that together reach this probability. */
  topP?: number;
  /** Default 0. The same seed, model and adapter give the same text. */
  seed?: number;
}

/** A seeded source of numbers in [0, 1): mulberry32. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** The k likeliest ids of a row of logits in order: higher logits first, then lower ids. */
export function likeliest(logits: Float32Array, k: number): number[] {
  const first = (a: number, b: number) => logits[b] - logits[a] || a - b;
  // Inserting into a list of k is quick while few get in.
  if (8 * k > logits.length) return [...logits.keys()].sort(first).slice(0, k);
  const best: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    if (best.length === k && !(logits[id] > logits[best[k - 1]])) continue;
    let at = best.length;
    while (at > 0 && logits[id] > logits[best[at - 1]]) at--;
    best.splice(at, 0, id);
    best.length = Math.min(best.length, k);
  }
  return best;
}

/** Draws one token id from a row of logits. */
export function sample(logits: Float32Array, options: Sampling, random: () => number): number {
  const { temperature = 0, topK = logits.length, topP = 1 } = options;
  if (temperature <= 0) return likeliest(logits, 1)[0];
  const kept = likeliest(logits, Math.max(1, topK));
  const top = logits[kept[0]];
  const weights = kept.map((id) => Math.exp((logits[id] - top) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let last = 0, mass = 0;
  while (last < kept.length && (last === 0 || mass < topP * total)) mass += weights[last++];
  let point = random() * mass;
  for (let i = 0; i < last; i++) {
    point -= weights[i];
    if (point < 0) return kept[i];
  }
  return kept[last - 1];
}

/** log Σ exp of a row, in f64. */
export function logSumExp(row: Float32Array): number {
  let top = -Infinity;
  for (let i = 0; i < row.length; i++) if (row[i] > top) top = row[i];
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += Math.exp(row[i] - top);
  return top + Math.log(sum);
}
