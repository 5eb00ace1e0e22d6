/** What finding the neurons of a fact and of a relation have in common. */
import { spaced, tokeniseTarget } from "../../editors/requests.ts";
import { InputError } from "../../engine/io/errors.ts";
import type { Model } from "../../engine/models/model.ts";
import { NEUTRAL } from "../../evaluation/neutral.ts";
import { number } from "../inputs.ts";

/** The flags of `emend neurons`. */
export interface Flags {
  model: string;
  method: string;
  prompt: string[];
  facts?: string;
  subject?: string;
  answer?: string;
  target?: string;
  unrelated: string[];
  steps: string;
  threshold: string;
  share: string;
  minPrompts: string;
  erase?: string;
  update?: string;
  out?: string;
  json?: boolean;
}

/** Settings of a search. */
export interface Settings {
  method: "kn" | "kn-easyedit";
  steps: number;
  threshold: number;
  share: number;
  minPrompts: number;
}

/** @throws {InputError} for a bad flag */
export function settingsOf(flags: Flags): Settings {
  const { method } = flags;
  if (method !== "kn" && method !== "kn-easyedit") {
    throw new InputError(`Unknown method "${method}" of finding neurons`, {
      hint: "There are kn and kn-easyedit",
    });
  }
  return {
    method,
    steps: number("--steps", flags.steps, 1, 1000, true),
    threshold: number("--threshold", flags.threshold, 0, 1),
    share: number("--share", flags.share, 0, 1),
    minPrompts: number("--min-prompts", flags.minPrompts, 1, 1e6, true),
  };
}

/** A prompt with its token ids. */
export interface Prompt {
  text: string;
  ids: number[];
}

/**
 * Prompts with the subject filled in.
 * @param where which fact it is, for error texts
 * @throws {InputError} for an empty prompt, or a {} without a subject
 */
export function filledPrompts(prompts: readonly string[], subject: string | undefined, where = ""): string[] {
  return prompts.map((prompt) => {
    if (prompt.trim() === "") throw new InputError(`${where}A prompt is empty`);
    if (prompt.includes("{}") && subject === undefined) {
      throw new InputError(`${where}There is no subject for {} in "${prompt}"`);
    }
    return prompt.replaceAll("{}", subject ?? "").trimEnd();
  });
}

/** An object as text and as ids after a prompt, and as EasyEdit encodes it: by itself. */
export interface ObjectText {
  text: string;
  ids: number[];
  alone: number[];
}

/** Tokenises an object after a prompt. */
export function objectOf({ tokenizer }: Model, prompt: Prompt, given: string): ObjectText {
  const text = spaced(given);
  return { text, ids: tokeniseTarget(tokenizer, prompt, text), alone: tokenizer.encode(given.trim()) };
}

/** Unrelated prompts when the user names none. */
const UNRELATED = 12;

/** The prompts that should not change. */
export function unrelatedPrompts({ tokenizer }: Model, { unrelated }: Flags): Prompt[] {
  const texts = unrelated.length ? unrelated : NEUTRAL.prompts.slice(0, UNRELATED);
  return texts.map((text) => ({ text, ids: tokenizer.encode(text) }));
}
