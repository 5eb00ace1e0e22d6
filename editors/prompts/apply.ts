/**
 * Lays edits by prompts on a model. All that go together are one memory: a prompt is compared with the facts of
 * every one of them, and the nearest decides. Encoder and answering model are made when the first prompt comes.
 */
import type { Model } from "../../engine/models/model.ts";
import { addRouter, type Route } from "../../engine/models/route.ts";
import { type Answerer, answererOf } from "./answer.ts";
import { joinPrompts, type PromptEdit } from "./edit.ts";
import { encoderOf } from "./encoders.ts";
import { nearestFacts, place, requireComparable } from "./scope.ts";
import { following, textOf } from "./text.ts";

/** Edits in order. */
interface Laid {
  edits: PromptEdit[];
  /** What they are together; made when a prompt comes, for a sequence lays many before it asks. */
  memories?: Memory[];
  /** Takes the router off. */
  router?: Disposable;
}

const LAID = new WeakMap<Model, Laid>();

/**
 * Puts an edit on a model; dispose the result to take exactly this one off again. An empty memory changes nothing.
 */
export function applyPrompts(model: Model, edit: PromptEdit): Disposable {
  const laid: Laid = LAID.get(model) ?? { edits: [] };
  LAID.set(model, laid);
  // The same edit may lie on a model twice.
  const own = { ...edit };
  laid.edits.push(own);
  changed(model, laid);
  return {
    [Symbol.dispose]() {
      laid.edits.splice(laid.edits.indexOf(own), 1);
      changed(model, laid);
    },
  };
}

function changed(model: Model, laid: Laid): void {
  laid.memories?.forEach((memory) => memory[Symbol.dispose]());
  laid.memories = undefined;
  const wanted = laid.edits.some(({ facts }) => facts.length > 0);
  if (wanted) laid.router ??= addRouter(model, (prompts) => route(model, laid, prompts));
  else {
    laid.router?.[Symbol.dispose]();
    laid.router = undefined;
  }
}

/** Of several memories that claim a prompt the last decides. */
async function route(
  model: Model,
  laid: Laid,
  prompts: readonly (readonly number[])[],
): Promise<(Route | undefined)[]> {
  laid.memories ??= memoriesOf(laid.edits).map((edit) => new Memory(model, edit));
  const claimed: (Route | undefined)[] = prompts.map(() => undefined);
  for (const memory of laid.memories) {
    (await memory.route(prompts)).forEach((route, i) => claimed[i] = route ?? claimed[i]);
  }
  return claimed;
}

/** The memories that lie on a model: edits that go together are one. */
export function memoriesOn(model: Model): PromptEdit[] {
  return memoriesOf(LAID.get(model)?.edits ?? []);
}

function memoriesOf(edits: readonly PromptEdit[]): PromptEdit[] {
  const memories: PromptEdit[] = [];
  for (const edit of edits.filter(({ facts }) => facts.length > 0)) {
    const joined = memories.length ? joinPrompts(memories.at(-1)!, edit) : undefined;
    if (joined) memories[memories.length - 1] = joined;
    else memories.push(edit);
  }
  return memories;
}

/** Facts on a model, with what answers prompts about them. */
class Memory implements Disposable {
  #model: Model;
  #edit: PromptEdit;
  #fronts = new Map<number, readonly number[]>();
  #answerer: Promise<Answerer> | undefined;

  constructor(model: Model, edit: PromptEdit) {
    this.#model = model;
    this.#edit = edit;
  }

  /** A prompt's text is all that the scope sees; answers under teacher forcing never reach it. */
  async route(prompts: readonly (readonly number[])[]): Promise<(Route | undefined)[]> {
    const { tokenizer } = this.#model;
    const about = await factsAbout(this.#model, this.#edit, prompts.map((ids) => textOf(tokenizer, ids)));
    if (about.every((one) => one === undefined)) return prompts.map(() => undefined);
    const { model } = await (this.#answerer ??= answererOf(this.#model, this.#edit.answers));
    return about.map((one, i) =>
      one && {
        model,
        front: this.#frontOf(one.fact),
        prompt: following(tokenizer, prompts[i]),
        ...one.share !== undefined && { share: one.share },
      }
    );
  }

  #frontOf(fact: number): readonly number[] {
    const ids = this.#fronts.get(fact) ?? this.#model.tokenizer.encode(this.#edit.facts[fact].front);
    this.#fronts.set(fact, ids);
    return ids;
  }

  [Symbol.dispose](): void {
    this.#answerer?.then((answerer) => answerer[Symbol.dispose]()).catch(() => {});
  }
}

/** The fact that each text is about, if there is one, and the share of the answer that it has, if not all. */
async function factsAbout(
  model: Model,
  edit: PromptEdit,
  texts: readonly string[],
): Promise<({ fact: number; share?: number } | undefined)[]> {
  const { facts, scope, gold } = edit;
  if (scope.rule === "gold") {
    return texts.map((text) => {
      const fact = gold?.get(text);
      return fact === undefined ? undefined : { fact };
    });
  }
  if (facts.length === 1 && (scope.alone || scope.rule === "always")) return texts.map(() => ({ fact: 0 }));
  requireComparable(scope);
  const encoder = await encoderOf(model, scope.encoder);
  const matches = nearestFacts(edit, await place(encoder, scope, texts));
  return matches.map((match) => {
    if (!match) return undefined;
    const { fact, value, inScope } = match;
    if (scope.rule === "always") return { fact };
    if (scope.soft) return { fact, share: Math.exp(-value) };
    return inScope ? { fact } : undefined;
  });
}
