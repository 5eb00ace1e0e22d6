/** Prompts between ids and text, for edits that put text before them. */
import type { Tokenizer } from "../../engine/io/tokenizer.ts";

/** The text of a prompt, without what the tokenizer puts around it. */
export function textOf(tokenizer: Tokenizer, ids: readonly number[]): string {
  return tokenizer.decode([...ids], { skipSpecial: true });
}

/**
 * A prompt's ids as they follow other text: without BOS, and with a blank before its first word where the
 * vocabulary spells blanks with the words that follow them. Blanks begin tokens in such vocabularies, so front
 * and prompt side by side are the tokens of the whole text.
 */
export function following(tokenizer: Tokenizer, ids: readonly number[]): readonly number[] {
  const own = tokenizer.addsBos && ids[0] === tokenizer.bos ? ids.slice(1) : ids;
  if (own.length === 0 || /^\s/.test(tokenizer.token(own[0]))) return own;
  const text = tokenizer.decode([...own]);
  const same = tokenizer.encode(text, { special: false });
  if (same.length !== own.length || same.some((id, i) => id !== own[i])) return own;
  const spaced = tokenizer.encode(` ${text}`, { special: false });
  return tokenizer.decode(spaced) === ` ${text}` ? spaced : own;
}
