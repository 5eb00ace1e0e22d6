/** What a model says to a request's prompt: likeliest tokens, probabilities of the objects, a continuation. */
import { generate } from "../engine/models/generate.ts";
import type { Model } from "../engine/models/model.ts";
import { type EditRequest, fill, tokeniseTarget } from "../editors/requests.ts";
import { type Continuation, meanLogProb, scoreTargets, topTokens } from "./scoring.ts";

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

/** New tokens of the continuation shown; more where a target is longer. */
const GENERATED = 16;
/** Prompts continued at a time. */
const BATCH = 32;

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
  const scores = await scoreTargets(model, items);
  const top = await topTokens(model, prompts.map((p) => p.ids), 5);
  const maxTokens = Math.max(GENERATED, ...items.map((item) => item.target.length));
  const texts: number[][] = [];
  for (let at = 0; at < prompts.length; at += BATCH) {
    const batch = prompts.slice(at, at + BATCH).map((p) => p.ids);
    texts.push(...await generate(model, batch, { maxTokens }));
  }
  let at = 0;
  return requests.map((r, i) => ({
    top: top[i].map(({ id, p }) => ({ token: tokenizer.token(id), p })),
    p_target: Math.exp(meanLogProb(scores[at++].logProbs)),
    ...(r.true === undefined ? {} : { p_true: Math.exp(meanLogProb(scores[at++].logProbs)) }),
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
