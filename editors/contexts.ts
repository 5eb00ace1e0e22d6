/**
 * Context templates x_j: short texts that the unedited model makes up, put before the prompt so that keys and
 * targets do not depend on one wording (ROME, section 3.1; guide section 1.3). Made once a model with a fixed
 * seed, whatever edits lie on it then, and reused for all edits.
 */
import type { Model } from "../engine/models/model.ts";
import { generate } from "../engine/models/generate.ts";
import { unedited } from "../engine/models/replace.ts";

/** [length in tokens, how many] pairs; ROME uses [[5, 10], [10, 10]]. */
export type ContextLengths = readonly (readonly [length: number, count: number])[];

/** What texts start from: GPT-2's end-of-text token where the model has it, as ROME does, or words, as MEMIT does. */
export type ContextStart = "end-of-text" | "words";

/** EasyEdit's and MEMIT's start words, also for models whose end-of-text token does not start a text. */
const START_WORDS = ["The", "Therefore", "Because", "I", "You"];

/** Sampled with top-k = 5, as the reference does. */
const TOP_K = 5;

const cache = new WeakMap<Model, Map<string, string[]>>();

/**
 * The contexts of a model, the bare one ("") first; each of the others ends with ". ".
 * @param lengths total tokens including the start, and how many of each
 */
export async function contexts(
  model: Model,
  lengths: ContextLengths,
  seed = 0,
  start: ContextStart = "end-of-text",
): Promise<string[]> {
  const key = JSON.stringify([lengths, seed, start]);
  const known = cache.get(model) ?? new Map<string, string[]>();
  cache.set(model, known);
  if (!known.has(key)) known.set(key, ["", ...await makeContexts(model, lengths, seed, start)]);
  return known.get(key)!;
}

async function makeContexts(
  model: Model,
  lengths: ContextLengths,
  seed: number,
  start: ContextStart,
): Promise<string[]> {
  const { tokenizer, config } = model;
  const out: string[] = [];
  for (const [length, count] of lengths) {
    const starts = Array.from(
      { length: count },
      (_, i) =>
        start === "end-of-text" && config.type === "gpt2" && tokenizer.eos !== undefined
          ? [tokenizer.eos]
          : tokenizer.encode(START_WORDS[i % START_WORDS.length]),
    );
    const texts = await generate(unedited(model), starts, {
      maxTokens: Math.max(1, length - starts[0].length),
      temperature: 1,
      topK: TOP_K,
      seed: seed + length,
      stop: [],
    });
    starts.forEach((ids, i) => {
      const text = tokenizer.decode([...ids, ...texts[i]], { skipSpecial: true });
      out.push(`${text.normalize("NFKD").replace(/\n\n/g, " ").trim()}. `);
    });
  }
  return out;
}

/** Stand-ins of the right lengths, for estimates: making the real ones needs the model to run. */
export function contextPlan(lengths: ContextLengths): string[] {
  return ["", ...lengths.flatMap(([tokens, count]) => Array(count).fill(`${"a ".repeat(tokens - 1)}. `))];
}

/** How many contexts each group has: the bare one, then one group a length. MEMIT averages keys group by group. */
export function contextGroups(lengths: ContextLengths): number[] {
  return [1, ...lengths.map(([, count]) => count).filter((count) => count > 0)];
}
