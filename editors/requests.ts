/**
 * Edit requests: what should change, as text; and as token ids with the subject found. Ids are made by
 * tokenising each prompt once, with character offsets: no id list is ever decoded and encoded again.
 */
import { InputError } from "../engine/io/errors.ts";
import type { Tokenizer } from "../engine/io/tokenizer.ts";
import type { Model } from "../engine/models/model.ts";

/** One edit: `prompt` with "{}" for the subject should continue with `target`. */
export interface EditRequest {
  /** A template with exactly one "{}", or plain text that contains the subject. */
  prompt: string;
  subject: string;
  /** The wanted continuation; a space is put before it unless it starts with one. */
  target: string;
  /** The true continuation, for before/after comparison. */
  true?: string;
}

/** A prompt with the subject filled in. `subjectLast` counts tokens from 0, BOS included. */
export interface TokenisedPrompt {
  text: string;
  ids: number[];
  subjectLast: number;
}

/** The place of the subject in a filled-in prompt. */
interface Filled {
  text: string;
  /** UTF-16 range of the subject. */
  start: number;
  end: number;
}

/**
 * Checks a request's fields; a plain prompt becomes a template at the subject's last occurrence. Spaces at the
 * prompt's end go: continuations bring their own.
 * @param where which request it is, for error texts: "Request 3"
 * @throws {InputError} naming the field
 */
export function validateRequest(request: EditRequest, where = "The request"): EditRequest {
  for (const key of ["prompt", "subject", "target", "true"] as const) {
    const value = request[key];
    if (key === "true" && value === undefined) continue;
    if (typeof value !== "string" || value.trim() === "") {
      throw new InputError(`${where} has an empty ${key}`);
    }
  }
  const subject = request.subject.trim(), target = spaced(request.target);
  let prompt = request.prompt.replace(/ +$/, "");
  const slots = prompt.split("{}").length - 1;
  if (slots > 1) throw new InputError(`${where} has ${slots} "{}" in its prompt; exactly one is allowed`);
  if (slots === 0) {
    const at = prompt.lastIndexOf(subject);
    if (at < 0) {
      throw new InputError(`${where} has a subject that is not in its prompt: "${subject}" in "${prompt}"`, {
        hint: 'Write {} where the subject goes, for example "{} is the capital of"',
      });
    }
    prompt = `${prompt.slice(0, at)}{}${prompt.slice(at + subject.length)}`;
  }
  return { ...request, prompt, subject, target, true: request.true && spaced(request.true) };
}

/**
 * Refuses more tokens than a model's context holds.
 * @param what has too many, for the error text
 */
export function requireRoom(tokens: number, { maxPositions }: { maxPositions: number }, what: string): void {
  if (tokens <= maxPositions) return;
  throw new InputError(`${what} has ${tokens} tokens; the model's context holds ${maxPositions}`);
}

/**
 * A validated request as token ids.
 * @throws {InputError} when the target has no token, or both together do not fit the context
 */
export function tokeniseRequest(model: Model, { prompt, subject, target }: EditRequest): {
  prompt: TokenisedPrompt;
  target: number[];
} {
  const tokens = tokenisePrompt(model.tokenizer, fill(prompt, subject));
  const ids = tokeniseTarget(model.tokenizer, tokens, target);
  requireRoom(tokens.ids.length + ids.length - 1, model.dims, `The prompt "${prompt}" with its target`);
  return { prompt: tokens, target: ids };
}

/**
 * Refuses requests that want different things of one prompt.
 * @param requests validated ones
 * @throws {InputError} naming both
 */
export function requireConsistent(requests: readonly EditRequest[]): void {
  const seen = new Map<string, number>();
  for (const [i, { prompt, subject, target }] of requests.entries()) {
    const { text } = fill(prompt, subject);
    const first = seen.get(text) ?? i;
    seen.set(text, first);
    const other = requests[first].target;
    if (other === target) continue;
    throw new InputError(
      `Requests ${first + 1} and ${i + 1} contradict each other: "${text}" should continue with ` +
        `"${other.trim()}" and with "${target.trim()}"`,
      { hint: "Leave one of them out" },
    );
  }
}

/**
 * Indices of requests about one subject together, in the order of their first ones: their keys are nearly the
 * same, so one change must serve them all (MEMIT-Merge, arXiv 2502.07322).
 */
export function bySubject(requests: readonly EditRequest[]): number[][] {
  const groups = new Map<string, number[]>();
  requests.forEach(({ subject }, i) => {
    const group = groups.get(subject);
    if (group) group.push(i);
    else groups.set(subject, [i]);
  });
  return [...groups.values()];
}

/** A continuation as it follows a prompt: with one leading space. */
export function spaced(text: string): string {
  return /^\s/.test(text) ? text : ` ${text}`;
}

/** Fills the subject into a template, after some context. */
export function fill(template: string, subject: string, context = ""): Filled {
  const [before, after] = template.split("{}");
  const start = context.length + before.length;
  return { text: context + before + subject + after, start, end: start + subject.length };
}

/**
 * Tokenises a filled-in prompt and finds the subject's last token: the last one whose characters meet the
 * subject's (Meng et al. 2022, "subject_last").
 * @throws {InputError} when no token covers the subject
 */
export function tokenisePrompt(tokenizer: Tokenizer, filled: Filled): TokenisedPrompt {
  const { ids, spans } = tokenizer.encodeWithOffsets(filled.text);
  const subjectLast = spans.findLastIndex(([from, to]) =>
    from < filled.end && to > filled.start && to > from
  );
  if (subjectLast < 0) throw new InputError(`No token of "${filled.text}" covers its subject`);
  return { text: filled.text, ids, subjectLast };
}

/**
 * Ids of a target after a prompt. Encoding both together and cutting the prompt off is right for every
 * tokenizer; where the boundary merges, the target is encoded alone.
 * @throws {InputError} when the target has no token
 */
export function tokeniseTarget(
  tokenizer: Tokenizer,
  prompt: { text: string; ids: number[] },
  target: string,
): number[] {
  const whole = tokenizer.encode(prompt.text + target);
  const stable = prompt.ids.every((id, i) => whole[i] === id);
  const ids = stable ? whole.slice(prompt.ids.length) : tokenizer.encode(target, { special: false });
  if (ids.length === 0) throw new InputError(`The target "${target}" has no token`);
  return ids;
}
