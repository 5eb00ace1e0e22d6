/**
 * Consistency, also called RS or reference score (Meng et al. 2022, section 3.3; code: kmeng01/rome,
 * eval_utils_counterfact.tfidf_similarity, dsets/tfidf_stats.py).
 *
 *   cosine of the TF-IDF vectors of all generated texts together and of all reference texts together
 *   weight of a word = its count · idf,  idf = ln((1 + n) / (1 + documents with it)) + 1
 *
 * The references tell of subjects that truly have the new object. Words are runs of two or more letters, digits
 * or underscores, lower-cased (scikit-learn's default). Quirks: ROME ships an idf table made from all its
 * snippets (42 MB) and ignores words that are not in it; without a table the case's own references are the
 * documents, and a word that is in none of them keeps the largest idf instead of being ignored, or a text with
 * one right word among a hundred others would score 1. The two are not comparable with each other.
 */
import type { Metrics } from "../records.ts";
import { cleanText } from "./text.ts";

/** Inverse document frequencies by word; words that are not in it do not count. */
export type IdfTable = ReadonlyMap<string, number>;

/** `consistency` of sampled texts; nothing without texts or references, or where they have no words. */
export function consistencyMetrics(
  texts: readonly string[] | undefined,
  references: readonly string[] | undefined,
): Metrics {
  if (!texts?.length || !references?.length) return {};
  const value = tfIdfCosine(texts.map(cleanText).join(" "), references);
  return value === undefined ? {} : { consistency: value };
}

/**
 * Cosine of the TF-IDF vectors of a text and of references joined by spaces.
 * @param table idf of a larger corpus; without it the references are the corpus
 * @returns `undefined` where either has no word that counts
 */
export function tfIdfCosine(
  text: string,
  references: readonly string[],
  table?: IdfTable,
): number | undefined {
  const idf = table ? (word: string) => table.get(word) ?? 0 : smoothedIdf(references);
  const a = weights(text, idf), b = weights(references.join(" "), idf);
  const norm = (v: ReadonlyMap<string, number>) => Math.hypot(...v.values());
  const scale = norm(a) * norm(b);
  if (scale === 0) return undefined;
  return [...a].reduce((sum, [word, weight]) => sum + weight * (b.get(word) ?? 0), 0) / scale;
}

function smoothedIdf(documents: readonly string[]): (word: string) => number {
  const found = new Map<string, number>();
  for (const document of documents) {
    for (const word of new Set(wordsOf(document))) found.set(word, (found.get(word) ?? 0) + 1);
  }
  return (word) => Math.log((1 + documents.length) / (1 + (found.get(word) ?? 0))) + 1;
}

function weights(text: string, idf: (word: string) => number): Map<string, number> {
  const out = new Map<string, number>();
  for (const word of wordsOf(text)) out.set(word, (out.get(word) ?? 0) + idf(word));
  return out;
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}_]{2,}/gu) ?? [];
}
