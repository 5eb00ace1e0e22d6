/**
 * What a layout is, and the steps that all layouts share: checking a record's fields, making the request, and
 * making probes from prompts and answers.
 */
import { z } from "npm:zod@4.6.7";
import { type EditRequest, fill, validateRequest } from "../../editors/requests.ts";
import { InputError } from "../../engine/io/errors.ts";
import type { EditCase, Probe, ProbeKind } from "../cases.ts";

/** A record as parsed. */
export type Fields = Record<string, unknown>;

/** How a dataset is read. */
export interface LayoutOptions {
  /**
   * zsRE only. `alt`, the default: the counterfactual answer (MEND, EasyEdit). `answer`: the right answer, which
   * makes the edit a correction (ROME, MEMIT).
   */
  target?: "alt" | "answer";
}

/** What a reader may ask for beside its record. */
export interface ReadContext {
  index: number;
  options: LayoutOptions;
  /** What `prepare` returned. */
  prepared: unknown;
  /** Something that the user should know about this record; the same text is told once, with its lines. */
  remark(text: string): void;
  /** Another record, around the end of the file; undefined where it cannot be parsed. */
  other(offset: number): Fields | undefined;
}

/** A case without what the file as a whole decides. */
export type CaseParts = Omit<EditCase, "id" | "index" | "line"> & { id?: string };

/** What a layout knows about published metrics beyond its probes. */
export interface Published {
  /** Families that are published with it: zsre, mend, mquake, ripple. */
  families?: readonly string[];
  /** Metrics, or whole families as "zsre.*", that its probes only seem to allow, and why not. */
  not?: Record<string, string>;
}

/** A published layout of records. */
export interface Layout {
  /** For people: "CounterFact (ROME)". */
  name: string;
  /** The keys that show it; they tell the nearest layout of a file that has none. */
  keys: readonly string[];
  /** Where a file is one object: the member that holds the records. */
  member?: string;
  /** Whether a record, or with `member` the file's object, looks like this layout. */
  recognise(sample: Fields): boolean;
  /** Goes over all records first, where one record does not say enough. */
  prepare?(records: Iterable<Fields>, file: Fields | undefined): unknown;
  /** @throws {InputError} saying why the record cannot be used: "The record …" */
  read(record: Fields, context: ReadContext): CaseParts;
  /** What a reader of the numbers must know about every file of this layout. */
  notes?(options: LayoutOptions): string[];
  gives?(options: LayoutOptions): Published;
}

/** Characters of one text at most; the longest passages of known data sets have some thousands. */
const MAX_TEXT = 100_000;

/** A text: not empty, at most 100,000 characters, whole Unicode. */
export const text = possiblyEmpty().refine((value) => value.trim() !== "", "is empty");
/** A text that may be empty or null. */
export const optionalText = possiblyEmpty().nullish();
/** A list of texts; absent and null are empty. */
export const texts = z.array(text).nullish().transform((list) => list ?? []);
/** A text or several. */
export const textOrTexts = z.union([z.array(text), text], "is neither a text nor a list of texts")
  .nullish().transform((value) => value === null || value === undefined ? [] : [value].flat());
/** The dataset's own id of a record. */
export const id = z.union([z.number(), z.string()], "is neither a number nor a text")
  .nullish().transform((value) => value === null || value === undefined ? undefined : String(value));

const scalar = z.union([possiblyEmpty(), z.number().transform(String)]);
/**
 * Answers as data sets write them. One text; a list of texts, any of which will do; or a list of such lists,
 * all of which are wanted. Empty ones go.
 */
export const answers = z.union(
  [scalar, z.array(z.union([scalar, z.array(scalar)]))],
  "is neither a text, nor a list of texts, nor a list of such lists",
).transform((value): string[][] => {
  const clean = (list: string[]) => list.map((item) => item.trim()).filter((item) => item !== "");
  if (typeof value === "string") return [clean([value])].filter((list) => list.length);
  const flat = value.every((item) => typeof item === "string");
  const lists = flat ? [value as string[]] : value.map((item) => [item].flat());
  return lists.map(clean).filter((list) => list.length);
});

function possiblyEmpty() {
  return z.string().refine((value) => value.length <= MAX_TEXT, `is longer than ${MAX_TEXT} characters`)
    .refine((value) => value.isWellFormed(), "holds half a character (a lone surrogate)");
}

const EXPECTED: Record<string, string> = {
  string: "a text",
  array: "a list",
  object: "an object",
  number: "a number",
};

/** Checks a record. @throws {InputError} naming the first field that does not fit */
export function check<T extends z.ZodType>(schema: T, record: Fields): z.infer<T> {
  const result = schema.safeParse(record);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = `"${issue.path.join(".")}"`;
  if (valueAt(record, issue.path) === undefined) throw new InputError(`The record has no ${field}`);
  const what = issue.code === "invalid_type"
    ? `is not ${EXPECTED[issue.expected] ?? issue.expected}`
    : issue.message;
  throw new InputError(`The record has a ${field} that ${what}`);
}

function valueAt(record: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | null)?.[key], record);
}

/**
 * The request of a record, checked. A subject in another case is taken as the prompt writes it where there is
 * no doubt. Of several true answers the first is kept; none, where one of them is the target: nothing can
 * compete with itself.
 */
export function makeRequest(
  raw: { prompt: string; subject: string; target: string; true?: string | readonly string[] | null },
  context: Pick<ReadContext, "remark">,
): EditRequest {
  const prompt = raw.prompt.trimEnd(), target = raw.target.trim();
  let subject = raw.subject.trim();
  if (!prompt.includes("{}") && !prompt.includes(subject)) {
    const found = sameButCase(prompt, subject);
    if (found !== undefined) {
      subject = found;
      context.remark("the subject is in another case than in the prompt, whose spelling is used");
    }
  }
  const truths = [raw.true ?? []].flat().map((answer) => answer.trim()).filter((answer) => answer !== "");
  const right = truths.some((answer) => answer.toLowerCase() === target.toLowerCase());
  if (right) context.remark("the target is already a right answer; there is no true one to compare it with");
  const truth = right ? undefined : truths[0];
  return validateRequest({ prompt, subject, target, ...(truth && { true: truth }) }, "The record");
}

/** The one place where a prompt has a text in another case. */
function sameButCase(prompt: string, subject: string): string | undefined {
  const [low, wanted] = [prompt.toLowerCase(), subject.toLowerCase()];
  // Lower case can be longer: "İ".
  if (low.length !== prompt.length || wanted === "") return undefined;
  const at = low.indexOf(wanted);
  return at >= 0 && at === low.lastIndexOf(wanted) ? prompt.slice(at, at + wanted.length) : undefined;
}

/** The edit prompt of a request, filled in. */
export function promptOf(request: EditRequest): string {
  return fill(request.prompt, request.subject).text;
}

/** The target and the true answer as probes hold them: without the space. */
export function sidesOf(request: EditRequest): { target: string; rival?: string } {
  return { target: request.target.trim(), ...(request.true && { rival: request.true.trim() }) };
}

/** Probes that ask for the new fact: the rewrite, or with prompts given its paraphrases, aliases and so on. */
export function newFact(
  request: EditRequest,
  kind: ProbeKind = "rewrite",
  prompts: readonly string[] = [promptOf(request)],
  more: { group?: string; aliases?: readonly string[] } = {},
): Probe[] {
  const { target, rival } = sidesOf(request);
  const { group, aliases = [] } = more;
  const any = [...new Set([target, ...aliases])];
  return prompts.map((prompt) => probe(kind, prompt, [any], "new", { group, rival }));
}

/** Probes about subjects other than the edited one whose true answer is that of the edit. */
export function sameObject(request: EditRequest, kind: ProbeKind, prompts: readonly string[]): Probe[] {
  const { target, rival } = sidesOf(request);
  if (rival === undefined) return [];
  return prompts.map((prompt) => probe(kind, prompt, [[rival]], "unchanged", { rival: target }));
}

/** Prompts to write from. */
export function generationProbes(prompts: readonly string[]): Probe[] {
  return prompts.map((prompt) => probe("generation", prompt, [], "new"));
}

/** A probe, its prompt without a space at its end and without keys that have no value. */
export function probe(
  kind: ProbeKind,
  prompt: string,
  answers: string[][],
  expect: Probe["expect"],
  { group, rival, test }: Partial<Pick<Probe, "group" | "rival" | "test">> = {},
): Probe {
  return {
    kind,
    prompt: prompt.trimEnd(),
    ...(group !== undefined && { group }),
    answers,
    expect,
    ...(rival !== undefined && { rival }),
    ...(test !== undefined && { test }),
  };
}
