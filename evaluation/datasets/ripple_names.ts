/** How RippleEdits' entities and relations are called, gathered over a whole file. */
import { isObject } from "../../engine/io/json.ts";
import type { Fields } from "./layout.ts";

/** What a file says about names. */
export interface Names {
  /** Label and aliases by entity id. */
  labels: Map<string, { label: string; aliases: string[] }>;
  /** By relation: what its prompts have before and after the subject. */
  templates: Map<string, { before: string; after: string }>;
}

interface Query {
  prompt: string;
  subject?: string;
  relation?: string;
}

/** Goes over all records. */
export function readNames(records: Iterable<Fields>): Names {
  const labels: Names["labels"] = new Map();
  const prompts = new Map<string, Map<string, string>>();
  for (const record of records) {
    for (const query of queriesOf(record)) {
      learnLabels(query, labels);
      const { prompt, subject, relation } = plain(query) ?? {};
      if (prompt === undefined || subject === undefined || relation === undefined) continue;
      const known = prompts.get(relation) ?? new Map<string, string>();
      prompts.set(relation, known.set(subject, prompt));
    }
  }
  const templates = new Map([...prompts].flatMap(([relation, bySubject]) => {
    const found = commonEnds([...bySubject.values()]);
    return found ? [[relation, found] as const] : [];
  }));
  return { labels, templates };
}

/** All queries of a record, of tests and of conditions. */
function* queriesOf(record: Fields): Generator<Fields> {
  for (const list of Object.values(record)) {
    if (!Array.isArray(list)) continue;
    for (const test of list.filter(isObject)) {
      for (const queries of [test.test_queries, test.condition_queries]) {
        if (Array.isArray(queries)) yield* queries.filter(isObject);
      }
    }
  }
}

/** A query in its relation's own words. */
function plain({ prompt, subject_id, relation, query_type, phrase }: Fields): Query | undefined {
  const own = (query_type ?? "regular") === "regular" && (phrase ?? null) === null;
  if (!own || typeof prompt !== "string" || typeof relation !== "string") return undefined;
  return {
    prompt: prompt.trimEnd(),
    relation,
    ...(typeof subject_id === "string" && { subject: subject_id }),
  };
}

/** The answers of a query are the labels of the ids it asks for, in order. */
function learnLabels(query: Fields, labels: Names["labels"]): void {
  const ids = query.query_type === "two_hop" ? query.second_hop_target_ids : query.target_ids;
  const { answers } = query;
  if (!Array.isArray(ids) || !Array.isArray(answers) || ids.length !== answers.length) return;
  ids.forEach((id, i) => {
    const { value, aliases } = isObject(answers[i]) ? answers[i] : {};
    if (typeof id !== "string" || typeof value !== "string" || value.trim() === "") return;
    const names = Array.isArray(aliases) ? aliases.filter((name) => typeof name === "string") : [];
    labels.set(id, { label: value.trim(), aliases: names });
  });
}

/** Share of a relation's prompts that must agree on a word; a few odd ones do not spoil it. */
const AGREE = 0.8;

/** What texts begin and end with, in whole words; undefined where there are too few to tell. */
function commonEnds(prompts: readonly string[]): { before: string; after: string } | undefined {
  if (new Set(prompts).size < 2) return undefined;
  const before = commonStart(prompts.map((prompt) => prompt.split(" ")));
  const rest = prompts.map((prompt) => prompt.split(" ")).filter((words) =>
    before.every((word, i) => words[i] === word)
  ).map((words) => words.slice(before.length).reverse());
  const after = commonStart(rest).reverse();
  return {
    before: before.map((word) => `${word} `).join(""),
    after: after.map((word) => ` ${word}`).join(""),
  };
}

/** The words that most lists begin with; of each list the last one stays out, for the subject. */
function commonStart(lists: readonly string[][]): string[] {
  const start: string[] = [];
  for (let left = lists;;) {
    const at = start.length;
    const counts = new Map<string, number>();
    for (const words of left) {
      if (at < words.length - 1) counts.set(words[at], (counts.get(words[at]) ?? 0) + 1);
    }
    const [word, count] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? ["", 0];
    if (count < 2 || count < AGREE * lists.length) return start;
    start.push(word);
    left = left.filter((words) => words[at] === word);
  }
}

/** Prompt, subject and target of an edit, or a sentence that says what cannot be recovered. */
export function recover(
  edit: {
    prompt: string;
    relation?: string | null;
    subject_id?: string;
    target_id?: string;
    original_fact?: { prompt: string } | null;
  },
  record: Fields,
  names: Names,
): { prompt: string; subject: string; target: string; true?: string; aliases: string[] } | string {
  const sentence = edit.prompt.trim().replace(/\.$/, "");
  const old = edit.original_fact?.prompt.trim().replace(/\.$/, "");
  const subject = subjectOf(edit.subject_id, sentence, record, names);
  if (subject === undefined) {
    return "The record's edit is a sentence in which the subject cannot be told: no query names it";
  }
  const known = names.labels.get(edit.target_id ?? "");
  const target = targetOf(sentence, subject, known?.label, old, names.templates.get(edit.relation ?? ""));
  if (target === undefined) {
    return "The record's edit is a sentence in which the target cannot be told: no label or template fits";
  }
  const prompt = sentence.slice(0, sentence.length - target.length).trimEnd();
  const truth = old?.startsWith(`${prompt} `) ? old.slice(prompt.length).trim() : undefined;
  const aliases = known?.label === target ? telling(known.aliases) : [];
  return { prompt, subject, target, ...(truth && { true: truth }), aliases };
}

/** Names long enough to be looked for in a text: RippleEdits leaves out single characters other than digits. */
export function telling(names: readonly string[]): string[] {
  return names.map((name) => name.trim()).filter((name) => [...name].length > 1 || /^\d$/.test(name));
}

/** The subject as queries about it, or answers that are it, write it; the reading that most of them give. */
function subjectOf(
  id: string | undefined,
  sentence: string,
  record: Fields,
  names: Names,
): string | undefined {
  const label = names.labels.get(id ?? "")?.label;
  if (label !== undefined && sentence.includes(label)) return label;
  const votes = new Map<string, number>();
  for (const query of queriesOf(record)) {
    const asked = plain(query);
    const template = names.templates.get(asked?.relation ?? "");
    if (!asked || !template || asked.subject !== id || id === undefined) continue;
    const { before, after } = template;
    if (!asked.prompt.startsWith(before) || !asked.prompt.endsWith(after)) continue;
    const found = asked.prompt.slice(before.length, asked.prompt.length - after.length).trim();
    if (found !== "" && sentence.includes(found)) votes.set(found, (votes.get(found) ?? 0) + 1);
  }
  return [...votes].sort(([a, m], [b, n]) => n - m || b.length - a.length)[0]?.[0];
}

/** The target: by its label, by the relation's template, or as that in which two sentences differ. */
function targetOf(
  sentence: string,
  subject: string,
  label: string | undefined,
  old: string | undefined,
  template: { before: string; after: string } | undefined,
): string | undefined {
  if (label !== undefined && sentence.endsWith(` ${label}`)) return label;
  const start = template && `${template.before}${subject}${template.after} `;
  if (start && sentence.startsWith(start)) return sentence.slice(start.length).trim() || undefined;
  if (old === undefined) return undefined;
  const [a, b] = [sentence.split(" "), old.split(" ")];
  let same = 0;
  while (same < Math.min(a.length, b.length) && a[same] === b[same]) same++;
  const rest = a.slice(same).join(" ");
  return rest !== "" && a.slice(0, same).join(" ").includes(subject) ? rest : undefined;
}
