/**
 * What the model says when it may speak: greedy text up to its natural stop, compared after normalisation
 * (Yang et al. 2025, "The Mirage of Model Editing"; code: zjunlp/EasyEdit,
 * evaluate_utils.normalize_answer).
 *
 *   gen.prefix.<kind>    share of probes whose text starts with the first answer, at a word's end
 *   gen.exact.<kind>     ... whose text equals the first answer
 *   gen.contains.<kind>  ... whose text has all of the answers, each by any of its aliases
 *
 * Quirks: as in the study, any full stop ends the text, also that of "St. Louis" or "3.5"; `gen.contains` is a
 * plain substring test, which accepts too much ("Parisian", "not Paris"), and is named apart for that reason.
 * EasyEdit drops ASCII punctuation only; here typographic quotes and dashes go too.
 */
import type { Metrics } from "../records.ts";
import { type Asked, perKind } from "./probes.ts";

/** Texts that stand for the end of a sequence, where a tokenizer writes it out. */
const END_OF_TEXT = ["<|endoftext|>", "</s>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>"];

/**
 * A generated text up to its first full stop, line break or end-of-text mark, which are left out. Idempotent;
 * a text without any of them comes back as it is, so `naturalStop(text) !== text` says that it has ended.
 */
export function naturalStop(text: string): string {
  const ends = [".", "\n", ...END_OF_TEXT].map((mark) => text.indexOf(mark)).filter((at) => at >= 0);
  return text.slice(0, Math.min(text.length, ...ends));
}

/**
 * Lower case, punctuation dropped (not replaced: "U.S." is "us"), the articles a, an and the dropped, spaces
 * squeezed. What would be nothing then, like "?" or "The", keeps its punctuation and articles.
 */
export function normaliseAnswer(text: string): string {
  const lower = text.toLowerCase();
  const bare = squeeze(lower.replace(PUNCTUATION, "").replace(ARTICLES, " "));
  return bare || squeeze(lower);
}

/** Python's `string.punctuation`, and all that Unicode calls punctuation. */
const PUNCTUATION = /[\p{P}$+<=>^`|~]/gu;

/** Whole words in the sense of Unicode, for "à" holds an "a" to an ASCII `\b`. */
const ARTICLES = /(?<![\p{L}\p{N}\p{M}_])(?:a|an|the)(?![\p{L}\p{N}\p{M}_])/gu;

function squeeze(text: string): string {
  return text.trim().replace(/\s+/gu, " ");
}

/** `gen.prefix`, `gen.exact` and `gen.contains` per kind, for probes with a text and answers. */
export function generationMetrics(asked: readonly Asked[]): Metrics {
  const spoken = asked.flatMap((a) => {
    const { text } = a.after;
    const first = a.probe.answers[0]?.[0];
    if (text === undefined || first === undefined || a.probe.kind === "generation") return [];
    return [{ ...a, text: normaliseAnswer(naturalStop(text)), first: normaliseAnswer(first) }];
  });
  return {
    ...perKind("gen.prefix", spoken, ({ text, first }) => +startsWithWords(text, first)),
    ...perKind("gen.exact", spoken, ({ text, first }) => +(text === first)),
    ...perKind("gen.contains", spoken, ({ after, probe }) => +containsAnswers(after.text!, probe.answers)),
  };
}

/** Whether a text, cut and normalised, holds for each answer at least one of its aliases. */
export function containsAnswers(text: string, answers: readonly (readonly string[])[]): boolean {
  const said = normaliseAnswer(naturalStop(text));
  return answers.every((aliases) => aliases.some((alias) => said.includes(normaliseAnswer(alias))));
}

/** In scripts that write words without spaces between them, every place is a word's end. */
const WITHIN_WORD =
  /^(?![\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmr}])[\p{L}\p{N}\p{M}_]/u;

/** Whether a normalised text starts with a normalised answer that ends where a word does. */
export function startsWithWords(text: string, start: string): boolean {
  return text.startsWith(start) && !WITHIN_WORD.test(text.slice(start.length));
}
