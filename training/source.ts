/**
 * What editors are trained on: examples by their number, so that a training that goes on after an interruption sees
 * what it would have seen. Every pass over the records is in an order of its own.
 */
import { seededRandom } from "../engine/models/sample.ts";
import type { Tokenizer } from "../engine/io/tokenizer.ts";
import type { Continuation, EditExample } from "../editors/hypernetworks/texts.ts";
import { spaced, tokeniseTarget } from "../editors/requests.ts";
import { InputError } from "../engine/io/errors.ts";

/** A prompt and its answer as texts. */
export interface Asking {
  prompt: string;
  answer: string;
}

/** One example as texts; see `EditExample`. */
export interface TextExample {
  edit: Asking;
  outer: Asking;
  loc: Asking;
  /** The answer before the edit, where it is known. */
  before?: string;
}

/** Records from which examples are drawn. */
export interface ExampleSource {
  /** For reports: the file, or "atlas". */
  name: string;
  /** SHA-256 of what it was made from, hex. */
  hash: string;
  /** Records. */
  count: number;
  /** What a reader of the results should know, one sentence each. */
  notes: string[];
  /** An example from record `record`; `random` decides what is left open: the new answer, the wording. */
  make(record: number, random: () => number): TextExample;
}

/** The `index`th example of a training with this seed. */
export function exampleAt(source: ExampleSource, seed: number, index: number): TextExample {
  const { count } = source;
  const pass = Math.floor(index / count);
  const record = orderOf(count, seed, pass)[index % count];
  return source.make(record, seededRandom(mix(seed, index)));
}

const ORDERS = new Map<string, Uint32Array>();

/** A random order of all records, one a pass. */
function orderOf(count: number, seed: number, pass: number): Uint32Array {
  const key = `${count} ${seed} ${pass}`;
  const known = ORDERS.get(key);
  if (known) return known;
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  const random = seededRandom(mix(seed, 0x9e3779b9 + pass));
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  if (ORDERS.size > 3) ORDERS.clear();
  ORDERS.set(key, order);
  return order;
}

/** One seed from two numbers. */
function mix(a: number, b: number): number {
  let h = Math.imul(a ^ 0x85ebca6b, 0xc2b2ae35) ^ Math.imul(b + 0x27d4eb2f, 0x165667b1);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}

/**
 * An example as token ids.
 * @throws {InputError} where a text has no token, or does not fit the model's context
 */
export function tokenise(tokenizer: Tokenizer, example: TextExample, maxPositions: number): EditExample {
  const ids = ({ prompt, answer }: Asking): Continuation => {
    const text = prompt.replace(/ +$/, "");
    const promptIds = tokenizer.encode(text);
    const target = tokeniseTarget(tokenizer, { text, ids: promptIds }, spaced(answer));
    if (promptIds.length === 0) throw new InputError(`The prompt "${prompt}" has no token`);
    if (promptIds.length + target.length > maxPositions) {
      throw new InputError(
        `"${prompt}" with its answer has ${
          promptIds.length + target.length
        } tokens; the model's context holds ` +
          `${maxPositions}`,
      );
    }
    return { prompt: promptIds, target };
  };
  const { edit, outer, loc, before } = example;
  return {
    edit: ids(edit),
    outer: ids(outer),
    loc: ids(loc),
    ...(before === undefined ? {} : { before: ids({ prompt: edit.prompt, answer: before }).target }),
  };
}
