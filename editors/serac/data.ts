/**
 * What SERAC's parts are trained on: facts in several wordings. A pair of wordings of one fact is in scope, one of
 * two facts is not; and a wording with any new answer before another wording is to be continued with that answer.
 */
import { tokeniseTarget } from "../requests.ts";
import { following } from "../prompts/text.ts";
import type { Tokenizer } from "../../engine/io/tokenizer.ts";

/** A fact in several wordings. */
export interface SeracRecord {
  /** Filled-in prompts that ask for the same object; at least two. */
  wordings: string[];
  /** What the model says to them, without a space before it. */
  answer: string;
  /** What they may be made to say, likewise. */
  targets: string[];
  /** Facts of one kind are hard to tell apart: a relation's id. */
  kind: string;
  subject: string;
}

/** Three texts: two of one fact, and one of another. */
export interface Triple {
  /** [record, wording] each. */
  test: [number, number];
  memory: [number, number];
  other: [number, number];
}

/** How often the other fact is one of the same kind, and one of the same subject; else it is any. */
const SAME_KIND = 0.7, SAME_SUBJECT = 0.1;

/**
 * Draws triples for the scope classifier, hard ones mostly.
 * @param all numbers of the records that they are drawn from
 */
export function tripleSource(
  records: readonly SeracRecord[],
  all: readonly number[],
  random: () => number,
): () => Triple {
  const ofKind = Map.groupBy(all, (i) => records[i].kind);
  const ofSubject = Map.groupBy(all, (i) => records[i].subject);
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)];
  const wording = (i: number): [number, number] => [i, Math.floor(random() * records[i].wordings.length)];
  return () => {
    const own = pick(all);
    const draw = random();
    const pool = draw < SAME_KIND
      ? ofKind.get(records[own].kind)!
      : draw < SAME_KIND + SAME_SUBJECT
      ? ofSubject.get(records[own].subject)!
      : all;
    let other = pick(pool);
    while (other === own && all.length > 1) other = pick(all);
    return { test: wording(own), memory: wording(own), other: wording(other) };
  };
}

/** One example of the counterfactual model, as token ids. */
export interface Copy {
  /** The edit and its answer. */
  front: number[];
  /** The test prompt as it follows them. */
  prompt: readonly number[];
  target: number[];
}

/** The share of examples whose test prompt is the edit's own. */
const SAME_WORDING = 0.15;
/** The share of targets of any kind, which a model cannot guess from the relation. */
const ANY_TARGET = 0.3;

/** Draws examples for the counterfactual model. */
export function copySource(
  tokenizer: Tokenizer,
  records: readonly SeracRecord[],
  random: () => number,
): () => Copy {
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)];
  return () => {
    const { wordings, targets } = pick(records);
    const target = pick(random() < ANY_TARGET ? pick(records).targets : targets);
    const edit = pick(wordings);
    const test = random() < SAME_WORDING ? edit : pick(wordings);
    return copyOf(tokenizer, edit, target, test);
  };
}

/** An edit and a test as ids: lists side by side, never decoded and encoded again. */
export function copyOf(tokenizer: Tokenizer, edit: string, target: string, test: string): Copy {
  return {
    front: tokenizer.encode(frontText(edit, target)),
    prompt: following(tokenizer, tokenizer.encode(test)),
    target: answerOf(tokenizer, test, target),
  };
}

function answerOf(tokenizer: Tokenizer, text: string, answer: string): number[] {
  return tokeniseTarget(tokenizer, { text, ids: tokenizer.encode(text) }, ` ${answer}`);
}

/** What stands before a prompt in scope: the edit's input and its label (guide section 6.3). */
export function frontText(edit: string, target: string): string {
  return `${edit} ${target}`;
}

/** One example of EasyEdit's training: an edit that is asked for itself, and a prompt that must stay. */
export interface Pair {
  /** What the classifier compares: the edit, what is asked for it, and what must stay; both with their answers. */
  texts: { edit: string; asked: string; other: string };
  /** The edit's prompt behind the edit. */
  asked: Copy;
  /** The other prompt behind the same edit. */
  other: Copy;
}

/** Draws examples as EasyEdit's loaders pair them: the edit's own wording, and any other fact. */
export function pairSource(
  tokenizer: Tokenizer,
  records: readonly SeracRecord[],
  random: () => number,
): () => Pair {
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)];
  return () => {
    const own = pick(records);
    let stays = pick(records);
    while (stays.subject === own.subject) stays = pick(records);
    const edit = pick(own.wordings), target = pick(own.targets), other = pick(stays.wordings);
    return {
      texts: { edit, asked: `${edit} ${target}`, other: `${other} ${stays.answer}` },
      asked: copyOf(tokenizer, edit, target, edit),
      other: { ...copyOf(tokenizer, edit, target, other), target: answerOf(tokenizer, other, stays.answer) },
    };
  };
}
