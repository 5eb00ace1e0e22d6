// The text atlas was trained on, made again from its data files. The rule is stated in README.md
// ("The corpus") and tools/atlas/common.py has it in Python; both give the same documents.

import factTable from "./data/facts.json" with { type: "json" };
import kindTable from "./data/kinds.json" with { type: "json" };
import relationTable from "./data/relations.json" with { type: "json" };

/** One fact: subject, relation (Wikidata property id) and object. */
export type AtlasFact = readonly [subject: string, relation: string, object: string];

/** How a relation is put into words; every template has one `{}` and ends right before the object. */
export interface AtlasRelation {
  name: string;
  /** A noun phrase for the object, for two-hop questions. */
  description: string;
  subjectKind: string;
  objectKind: string;
  statements: string[];
  questions: string[];
}

const facts = factTable as unknown as AtlasFact[];
const relations = relationTable as Record<string, AtlasRelation>;
const kinds = kindTable as {
  subjects: Record<string, string>;
  objects: Record<string, string[]>;
  general: string[];
};

const SENTENCES_PER_DOCUMENT = 8;
const GENERAL_REPEATS = 5;

/** 32-bit FNV-1a of the text's UTF-8 bytes. */
function fnv1a(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

/**
 * The phrasings of one subject and relation: those atlas was trained on and those withheld from it
 * (two statements and one question, chosen by hash).
 *
 * @throws if the relation is unknown
 */
export function atlasSplit(subject: string, relation: string): { trained: string[]; withheld: string[] } {
  const entry = relations[relation];
  if (!entry) throw new Error(`Relation ${relation} is not in atlas/data/relations.json`);
  const { statements, questions } = entry;
  const hash = fnv1a(`${relation}\t${subject}`);
  const first = hash % statements.length;
  const second = (first + 1 + (hash >>> 8) % (statements.length - 1)) % statements.length;
  const question = (hash >>> 16) % questions.length;
  const trained: string[] = [], withheld: string[] = [];
  statements.forEach((t, i) => (i === first || i === second ? withheld : trained).push(t));
  questions.forEach((t, i) => (i === question ? withheld : trained).push(t));
  return { trained, withheld };
}

/** Puts the text into the template's slot. */
function fill(template: string, text: string): string {
  return template.replace("{}", () => text);
}

/** Every sentence of one pass, in file order. */
function atlasSentences(): string[] {
  const sentences: string[] = [];
  const subjectKind = new Map<string, string>();
  for (const [subject, relation, object] of facts) {
    for (const template of atlasSplit(subject, relation).trained) {
      sentences.push(`${fill(template, subject)} ${object}.`);
    }
    const kind = kinds.subjects[relations[relation].subjectKind];
    if (!subjectKind.has(subject)) subjectKind.set(subject, kind);
  }
  for (const [subject, kind] of subjectKind) sentences.push(`${subject} is ${kind}.`);
  const told = new Set<string>();
  for (const [, relation, object] of facts) {
    const kind = relations[relation].objectKind;
    if (told.has(`${kind}\t${object}`)) continue;
    told.add(`${kind}\t${object}`);
    for (const template of kinds.objects[kind]) sentences.push(fill(template, object));
  }
  for (let i = 0; i < GENERAL_REPEATS; i++) sentences.push(...kinds.general);
  return sentences;
}

/**
 * Yields one shuffled pass over atlas's sentences as documents of eight sentences (the last may be
 * shorter), about 36,000 sentences or 400,000 tokens in all. Withheld phrasings never occur. Another
 * seed gives another order of the same sentences.
 */
export function* atlasCorpus(options: { seed?: number } = {}): Generator<string> {
  const sentences = atlasSentences();
  let state = (options.seed ?? 0) >>> 0;
  for (let i = sentences.length - 1; i > 0; i--) {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    const j = Math.floor(state * (i + 1) / 2 ** 32);
    [sentences[i], sentences[j]] = [sentences[j], sentences[i]];
  }
  for (let i = 0; i < sentences.length; i += SENTENCES_PER_DOCUMENT) {
    yield sentences.slice(i, i + SENTENCES_PER_DOCUMENT).join(" ");
  }
}
