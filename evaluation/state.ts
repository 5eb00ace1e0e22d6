/** What a model says to a request's prompt: likeliest tokens, probabilities of the objects, a continuation. */
import { generate } from "../engine/models/generate.ts";
import type { Model } from "../engine/models/model.ts";
import { type EditRequest, fill, tokeniseTarget } from "../editors/requests.ts";
import { type Continuation, meanLogProb, scoreContinuations, topTokens } from "./scoring.ts";

/** The model's state at one request; part of `edit --json`. */
export interface RequestState {
  /** The five likeliest next tokens. */
  top: { token: string; p: number }[];
  /** exp of the target's mean log-probability a token. */
  p_target: number;
  /** The same of the true object, when the request names one. */
  p_true?: number;
  /** Greedy continuation of the prompt. */
  generation: string;
}

/** New tokens of the continuation shown. */
const GENERATED = 16;

/** The state at each of the requests (validated ones, with a "{}" template). */
export async function requestStates(model: Model, requests: readonly EditRequest[]): Promise<RequestState[]> {
  const { tokenizer } = model;
  const prompts = requests.map(({ prompt, subject }) => {
    const { text } = fill(prompt, subject);
    return { text, ids: tokenizer.encode(text) };
  });
  const items: Continuation[] = requests.flatMap((r, i) =>
    [r.target, r.true].flatMap((target) =>
      target === undefined
        ? []
        : [{ prompt: prompts[i].ids, target: tokeniseTarget(tokenizer, prompts[i], target) }]
    )
  );
  const scores = await scoreContinuations(model, items);
  const top = await topTokens(model, prompts.map((p) => p.ids), 5);
  const texts = await generate(model, prompts.map((p) => p.ids), { maxTokens: GENERATED });
  let at = 0;
  return requests.map((r, i) => ({
    top: top[i].map(({ id, p }) => ({ token: tokenizer.token(id), p })),
    p_target: Math.exp(meanLogProb(scores[at++])),
    ...(r.true === undefined ? {} : { p_true: Math.exp(meanLogProb(scores[at++])) }),
    generation: tokenizer.decode(texts[i]),
  }));
}

/**
 * Did the edit take? With a true object: the target is likelier. Without: it is what greedy decoding says.
 */
export function editSucceeded(request: EditRequest, after: RequestState): boolean {
  if (after.p_true !== undefined) return after.p_target > after.p_true;
  return after.generation.trim().startsWith(request.target.trim());
}
