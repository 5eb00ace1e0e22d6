/**
 * Ordinary text of a model: what it writes by itself, unedited. Methods that must not disturb other text need some
 * at every edit; the authors take training data, which a program that holds only the model does not have.
 */
import { generate } from "../../engine/models/generate.ts";
import type { Model } from "../../engine/models/model.ts";

/** Words that texts begin with, and more that send them different ways. */
const STARTS = ["The", "In", "A", "It", "On", "What", "When", "For", "Which", "At", "One", "There"];

const cache = new WeakMap<Model["weights"], Map<string, number[][]>>();

/**
 * Token ids of sampled texts (temperature 1, top-k 50), made once a model and setting. Call it before the first
 * edit lies on the model: later calls give the same texts.
 */
export async function ordinaryTexts(
  model: Model,
  count: number,
  length: number,
  seed: number,
): Promise<number[][]> {
  const key = [count, length, seed].join();
  const known = cache.get(model.weights) ?? new Map<string, number[][]>();
  cache.set(model.weights, known);
  const before = known.get(key);
  if (before) return before;
  const starts = Array.from({ length: count }, (_, i) => model.tokenizer.encode(STARTS[i % STARTS.length]));
  const made = await generate(model, starts, { maxTokens: length, temperature: 1, topK: 50, seed, stop: [] });
  const texts = starts.map((ids, i) => [...ids, ...made[i]]);
  known.set(key, texts);
  return texts;
}
