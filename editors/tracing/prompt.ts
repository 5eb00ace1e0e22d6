/** Facts to trace as token ids, with the subject's tokens found; and whether the model knows them. */
import { InputError } from "../../engine/io/errors.ts";
import type { Tokenizer } from "../../engine/io/tokenizer.ts";
import { generate } from "../../engine/models/generate.ts";
import type { Model } from "../../engine/models/model.ts";
import { fill, requireRoom } from "../requests.ts";

/** A fact whose recall is traced. */
export interface TraceRequest {
  /** Text that contains the subject, or a template with one "{}" for it. */
  prompt: string;
  subject: string;
  /** What the model should say next; facts that it answers otherwise are left out. Default: what it says. */
  answer?: string;
}

/** A prompt with its subject's tokens [first, end). */
export interface SubjectTokens {
  text: string;
  ids: number[];
  subject: [first: number, end: number];
}

/**
 * Tokenises a prompt and finds the tokens that cover the subject: its first occurrence, as in the authors' code,
 * or where "{}" is.
 * @throws {InputError} when the subject is empty or not in the prompt, or no token covers it
 */
export function subjectTokens(tokenizer: Tokenizer, { prompt, subject }: TraceRequest): SubjectTokens {
  const name = subject.trim();
  if (name === "") throw new InputError(`The subject of "${prompt}" is empty`);
  let template = prompt.trimEnd();
  const slots = template.split("{}").length - 1;
  if (slots > 1) throw new InputError(`"${prompt}" has ${slots} "{}"; at most one is allowed`);
  if (slots === 0) {
    const at = template.indexOf(name);
    if (at < 0) {
      throw new InputError(`The subject "${name}" is not in the prompt "${prompt}"`, {
        hint: "Write the subject as the prompt has it, or {} where it goes",
      });
    }
    template = `${template.slice(0, at)}{}${template.slice(at + name.length)}`;
  }
  const { text, start, end } = fill(template, name);
  const { ids, spans } = tokenizer.encodeWithOffsets(text);
  const covers = ([from, to]: readonly [number, number]) => from < end && to > start && to > from;
  const first = spans.findIndex(covers);
  if (first < 0) throw new InputError(`No token of "${text}" covers its subject`);
  return { text, ids, subject: [first, spans.findLastIndex(covers) + 1] };
}

/** A fact that the model knows, ready to be traced, or what it says instead. */
export interface Recalled {
  request: TraceRequest;
  prompt: SubjectTokens;
  /** The model's next token. */
  says: number;
  /** Whether its greedy continuation begins with the answer; true where no answer is asked for. */
  known: boolean;
}

/** Asks the model for all facts, greedily. @throws {InputError} for a prompt without room for the answer */
export async function recall(model: Model, requests: readonly TraceRequest[]): Promise<Recalled[]> {
  const { tokenizer } = model;
  const prompts = requests.map((request) => subjectTokens(tokenizer, request));
  const maxTokens = Math.max(
    1,
    // A space before the answer may be a token of its own.
    ...requests.map(({ answer }) => answer ? tokenizer.encode(` ${answer.trim()}`).length + 1 : 1),
  );
  for (const { text, ids } of prompts) {
    requireRoom(ids.length + maxTokens, model.dims, `The prompt "${text}" with its answer`);
  }
  const texts = await generate(model, prompts.map(({ ids }) => ids), { maxTokens, stop: [] });
  return requests.map((request, i) => {
    const answer = request.answer?.trim() ?? "";
    const known = answer === "" || tokenizer.decode(texts[i]).trimStart().startsWith(answer);
    return { request, prompt: prompts[i], says: texts[i][0], known };
  });
}
