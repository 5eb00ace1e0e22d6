/**
 * IKE's prompt (Zheng et al. 2023, "Can we edit factual knowledge by in-context learning?", section 3, and the
 * authors' icl.py): demonstrations that copy a new fact, that carry it over to a rewording, and that leave other
 * facts alone, the most similar ones last; then the fact itself.
 */
import { seededRandom } from "../engine/models/sample.ts";
import type { CorpusRecord } from "./ike_corpus.ts";

/** How many demonstrations of each kind. */
export interface Counts {
  copy: number;
  update: number;
  retain: number;
}

export type DemonstrationKind = keyof Counts;

/** One demonstration. */
export interface Demonstration {
  kind: DemonstrationKind;
  text: string;
}

/** A fact as text: a filled prompt and an answer without a space before it. */
interface Told {
  prompt: string;
  new: string;
}

/** "New Fact: … ↵ Prompt: x y ↵↵" */
function demonstration({ prompt, new: target }: Told, x: string, y: string): string {
  return `New Fact: ${prompt} ${target}\nPrompt: ${x} ${y}\n\n`;
}

/**
 * Demonstrations in the order of the prompt: the nearest record's comes last, and behind it a copy of the fact
 * itself.
 * @param nearest records, the nearest first; at least as many as the counts' sum are used
 * @param seed of kinds, rewordings and neighbours
 */
export function demonstrations(
  fact: Told,
  nearest: readonly CorpusRecord[],
  counts: Counts,
  seed: number,
): Demonstration[] {
  const random = seededRandom(seed);
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)];
  const kinds = (["copy", "update", "retain"] as const).flatMap((kind) =>
    Array<DemonstrationKind>(counts[kind]).fill(kind)
  );
  for (let i = kinds.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [kinds[i], kinds[j]] = [kinds[j], kinds[i]];
  }
  const made = nearest.slice(0, kinds.length).map((record, i): Demonstration => {
    const kind = kinds[i];
    if (kind === "copy") return { kind, text: demonstration(record, record.prompt, record.new) };
    if (kind === "update") return { kind, text: demonstration(record, pick(record.paraphrases), record.new) };
    const { prompt, answer } = pick(record.neighbours);
    return { kind, text: demonstration(record, prompt, answer) };
  });
  return [...made.reverse(), { kind: "copy", text: demonstration(fact, fact.prompt, fact.new) }];
}

/** What stands before a prompt: demonstrations, the fact once more, and "Prompt:". */
export function frontOf(fact: Told, before: readonly Demonstration[]): string {
  return `${before.map(({ text }) => text).join("")}New Fact: ${fact.prompt} ${fact.new}\nPrompt:`;
}
