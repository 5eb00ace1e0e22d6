/** Choosing a token from logits on the host, in f64: temperature, top-k, top-p, seeded. */

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

/** Draws one token id from a row of logits. */
export function sample(logits: Float32Array, options: Sampling, random: () => number): number {
  const { temperature = 0, topK = logits.length, topP = 1 } = options;
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  if (temperature <= 0) return order[0];
  const kept = order.slice(0, Math.max(1, topK));
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
