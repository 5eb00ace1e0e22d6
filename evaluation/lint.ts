/**
 * What is probably wrong with edit requests, said before any of them is made. Errors cannot both be wanted or
 * cannot be edited; warnings are mostly mistakes; hints are worth a look.
 */
import { type EditRequest, fill } from "../editors/requests.ts";

/** One thing about one request. */
export interface Finding {
  severity: "error" | "warning" | "hint";
  /** Position of the request. */
  index: number;
  /** Line in its file, where the caller knows it. */
  line?: number;
  /** One sentence, no final period. */
  message: string;
}

/** What the caller knows beside the requests. */
export interface LintContext {
  /** The model's greedy answer to each request's prompt. */
  current?: readonly (string | undefined)[];
  /** Other names of each request's subject. */
  aliases?: readonly (readonly string[] | undefined)[];
  /** Each request's relation: an id as in the dataset. Without it the relation is the prompt's template. */
  relations?: readonly (string | undefined)[];
  /** Line of each request in its file. */
  lines?: readonly number[];
}

/** A target of more words than this is a sentence, not an object. */
const LONG_TARGET = 12;

/** Checks requests each by itself and against each other; findings in the order of the requests. */
export function lintRequests(requests: readonly EditRequest[], context: LintContext = {}): Finding[] {
  const findings: Finding[] = [];
  const add = (severity: Finding["severity"], index: number, message: string) => {
    const line = context.lines?.[index];
    findings.push({ severity, index, ...(line !== undefined && { line }), message });
  };
  requests.forEach((request, index) => {
    lintOne(request, context.current?.[index], (severity, message) => add(severity, index, message));
  });
  lintPairs(requests, context, add);
  return findings.sort((a, b) => a.index - b.index);
}

function lintOne(
  { prompt, subject, target, true: truth }: EditRequest,
  current: string | undefined,
  add: (severity: Finding["severity"], message: string) => void,
): void {
  const slots = prompt.split("{}").length - 1;
  const bare = target.trim();
  if (subject.trim() === "") add("error", "The subject is empty");
  else if (slots === 0 && !prompt.includes(subject)) {
    const otherCase = key(prompt).includes(key(subject));
    const hint = otherCase ? "; it is there in another case" : "";
    add("error", `The subject "${subject}" is not in the prompt "${prompt}"${hint}`);
  } else if (slots > 1) add("error", `The prompt has ${slots} "{}"; exactly one is allowed`);
  else if (occurrences(prompt, subject) + slots > 1) {
    add(
      "warning",
      `The subject "${subject}" is in the prompt more than once; the edit is made at one place only`,
    );
  }
  if (bare === "") return add("error", "The target is empty");
  if (/^\s{2}|^[\t\n\r]|\s$|\s{2}|[\u00a0\u200b\ufeff]/.test(target)) {
    add(
      "warning",
      `The target ${JSON.stringify(target)} has odd white space, which becomes part of the answer`,
    );
  }
  const words = bare.split(/\s+/).length;
  if (words > LONG_TARGET) {
    add(
      "warning",
      `The target has ${words} words; methods that edit one association are made for short ones`,
    );
  }
  if (truth !== undefined && key(truth) === key(target)) {
    add("warning", `The target "${bare}" is the true answer: there is nothing to edit`);
  }
  if (current !== undefined && startsWithWords(current, target)) {
    add("warning", `The model already answers "${bare}"`);
  }
  const asked = slots === 1 ? fill(prompt, subject).text : prompt;
  const end = ` ${key(asked)}`;
  if (end.endsWith(` ${key(target)}`) && key(asked) !== key(target)) {
    add("warning", `The prompt already ends with the target "${bare}"`);
  }
}

type Add = (severity: Finding["severity"], index: number, message: string) => void;

function lintPairs(requests: readonly EditRequest[], { aliases, relations }: LintContext, add: Add): void {
  const slots = new Map<string, number>(), bySubject = new Map<string, number>();
  const relationOf = requests.map((request, i) => relations?.[i] ?? key(templateOf(request)));
  requests.forEach((request, i) => {
    const slot = JSON.stringify([relationOf[i], key(request.subject)]);
    const earlier = slots.get(slot);
    if (earlier === undefined) slots.set(slot, i);
    else if (key(requests[earlier].target) === key(request.target)) {
      add("warning", i, `It repeats ${nameOf(earlier)}`);
    } else {
      const [a, b] = [requests[earlier].target.trim(), request.target.trim()];
      add("error", i, `It contradicts ${nameOf(earlier)}: "${a}" there, "${b}" here`);
    }
    if (!bySubject.has(key(request.subject))) bySubject.set(key(request.subject), i);
  });
  sameSubjects(requests, aliases, add);
  requests.forEach((request, i) => {
    const j = bySubject.get(key(request.target));
    if (j === undefined || j >= i || key(requests[j].target) !== key(request.subject)) return;
    add(
      "hint",
      i,
      `Its subject is the target of ${
        nameOf(j)
      } and the other way round: if the relations are inverse they agree, ` +
        "and editing one does not edit the other",
    );
  });
}

/** Subjects that may be one and the same under different names. */
function sameSubjects(requests: readonly EditRequest[], aliases: LintContext["aliases"], add: Add): void {
  // The first request of each name, however it is spelled.
  const first = new Map<string, number>(), spellings = new Set<string>(), aliasOf = new Map<string, string>();
  requests.forEach(({ subject }, i) => {
    const name = key(subject), spelling = subject.trim();
    const known = first.get(name);
    if (name === "") return;
    if (known === undefined) first.set(name, i);
    else if (!spellings.has(spelling)) {
      add(
        "hint",
        i,
        `The subject "${spelling}" is written "${requests[known].subject.trim()}" in ${nameOf(known)}`,
      );
    }
    spellings.add(spelling);
    for (const alias of aliases?.[i] ?? []) aliasOf.set(key(alias), name);
  });
  const tell = (a: number, b: number, how: string) => {
    const [here, there] = [Math.max(a, b), Math.min(a, b)];
    const [subject, other] = [requests[here].subject.trim(), requests[there].subject.trim()];
    add("hint", here, `The subject "${subject}" ${how} "${other}" of ${nameOf(there)}`);
  };
  for (const [name, i] of first) {
    const other = aliasOf.get(name);
    if (other !== undefined && other !== name) tell(i, first.get(other)!, "is by its aliases");
    for (const part of partsOf(name)) {
      const j = first.get(part);
      if (j !== undefined && part !== other) tell(i, j, "may be");
    }
  }
}

/** Longest name that is looked for in others, in words. */
const NAME_WORDS = 10;

/** The runs of words in a name that are shorter than it. */
function partsOf(name: string): Set<string> {
  const words = name.split(" ");
  const parts = words.flatMap((_, i) =>
    words.slice(i, i + NAME_WORDS).map((_, n) => words.slice(i, i + n + 1).join(" "))
  );
  return new Set(parts.filter((part) => part.length < name.length));
}

function nameOf(index: number): string {
  return `request ${index + 1}`;
}

/** Texts that differ in case, spaces and the mark at the end are the same. */
function key(text: string): string {
  return text.normalize("NFKC").toLowerCase().replaceAll(/\s+/g, " ").trim().replace(/[.!?]$/, "");
}

function templateOf({ prompt, subject }: EditRequest): string {
  if (prompt.includes("{}")) return prompt;
  const at = prompt.lastIndexOf(subject);
  return at < 0 ? prompt : `${prompt.slice(0, at)}{}${prompt.slice(at + subject.length)}`;
}

function occurrences(text: string, part: string): number {
  return text.split(part).length - 1;
}

/** Whether a text begins with another, up to the end of a word. */
function startsWithWords(text: string, start: string): boolean {
  const [whole, part] = [key(text), key(start)];
  return part !== "" && whole.startsWith(part) && !/^[\p{L}\p{N}]/u.test(whole.slice(part.length));
}
