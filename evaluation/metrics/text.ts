/**
 * Fluency, also called GE, generation entropy or n-gram entropy (Meng et al. 2022, section 3.3, after Zhang et
 * al. 2018; code: kmeng01/rome, eval_utils_counterfact.n_gram_entropy and util/generate.py).
 *
 *   H_n = Shannon entropy in bits of a text's n-grams of words
 *   fluency = mean over texts of (2/3·H_2 + 4/3·H_3) / 2
 *
 * Low values mean that a text repeats itself; tables give it times 100. Quirks: the prompt is part of the text;
 * a short text cannot have a high entropy, so texts of one length only compare; a text without trigrams
 * has H_3 = 0.
 */
import type { Metrics } from "../records.ts";
import { mean } from "./probes.ts";
import { wordTokens } from "./words.ts";

/** `fluency` of sampled texts, prompts included; nothing without texts. */
export function textMetrics(texts: readonly string[] | undefined): Metrics {
  return texts?.length ? { fluency: mean(texts.map((text) => nGramEntropy(cleanText(text)))) } : {};
}

/** What ROME does to a generated text before measuring: NFKD, blank lines to spaces, no end-of-text mark. */
export function cleanText(text: string): string {
  return text.normalize("NFKD").replaceAll("\n\n", " ").replaceAll("<|endoftext|>", "");
}

/** (2/3·H_2 + 4/3·H_3) / 2 of a text, in bits. */
export function nGramEntropy(text: string): number {
  const words = wordTokens(text);
  return (2 / 3 * entropy(words, 2) + 4 / 3 * entropy(words, 3)) / 2;
}

/** Entropy in bits of the n-grams of a list of words; 0 where there is none. */
function entropy(words: readonly string[], n: number): number {
  const counts = new Map<string, number>();
  const total = words.length - n + 1;
  for (let i = 0; i < total; i++) {
    // No word holds a space.
    const gram = words.slice(i, i + n).join(" ");
    counts.set(gram, (counts.get(gram) ?? 0) + 1);
  }
  return [...counts.values()].reduce((sum, count) => sum - count / total * Math.log2(count / total), 0);
}
