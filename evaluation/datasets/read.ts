/**
 * Reading a dataset: recognise its layout, turn its records into cases, and say what is wrong with the others and
 * with the whole. A record that cannot be used never stops a run; a file without any usable one does.
 */
import { createHash } from "node:crypto";
import { InputError } from "../../engine/io/errors.ts";
import { seededRandom } from "../../engine/models/sample.ts";
import type { Dataset, EditCase, Unusable } from "../cases.ts";
import type { Fields, Layout, LayoutOptions } from "./layout.ts";
import { recogniseLayout } from "./layouts.ts";
import { publishedMetrics } from "./published.ts";
import { type RawFile, type RawRecord, splitRecords } from "./records.ts";
import { type DownloadProgress, readSource } from "./sources.ts";

/** How to read a dataset. */
export interface ReadOptions extends LayoutOptions {
  /** Told about downloads. */
  progress?: DownloadProgress;
}

/** Records that decide on the layout. */
const SAMPLE = 100;

/**
 * Reads a dataset.
 * @param nameOrPath `atlas`, `atlas-zsre`, `counterfact`, `zsre`, or a file: JSON, JSONL, CSV or TSV
 * @throws {InputError} when it cannot be read, is damaged (naming the line), has no known layout, or no usable
 *   record
 */
export async function readDataset(nameOrPath: string, options: ReadOptions = {}): Promise<Dataset> {
  const { name, bytes } = await readSource(nameOrPath, options.progress);
  return parseDataset(name, bytes, options);
}

/** {@link readDataset} for bytes at hand. */
export function parseDataset(name: string, bytes: Uint8Array, options: LayoutOptions = {}): Dataset {
  const hash = createHash("sha256").update(bytes).digest("hex");
  const file = splitRecords(bytes, name);
  if (file.records.length === 0) throw new InputError(`${name} holds no record`);
  const { layout, records, object } = recognise(file, name);
  const { cases, unusable, remarks } = readRecords(layout, records, object, options);
  const where = placesIn([...cases, ...unusable]);
  if (cases.length === 0) throw noneUsable(`${name} has the layout ${layout.name}, but`, unusable);
  numberIds(cases, remarks);
  const notes = [...layout.notes?.(options) ?? [], ...tell(remarks, where)];
  const { duplicates, conflicts } = compareEdits(cases);
  if (conflicts.length) {
    notes.push("Some cases contradict earlier ones: made together, the later edit undoes the earlier");
  }
  return {
    name,
    layout: options.target === "answer" && layout.name.startsWith("zsRE")
      ? `${layout.name}, edited to the right answers`
      : layout.name,
    hash,
    total: records.length,
    cases,
    unusable,
    duplicates,
    conflicts,
    ...publishedMetrics(cases, layout.gives?.(options) ?? {}),
    notes,
  };
}

/**
 * Some cases of a dataset: the first ones, or with a seed a random choice in random order. The choice for a
 * smaller limit is the beginning of that for a larger one.
 */
export function sampleCases(dataset: Dataset, options: { limit?: number; seed?: number } = {}): EditCase[] {
  const { limit = dataset.cases.length, seed } = options;
  const cases = [...dataset.cases];
  if (seed !== undefined) {
    const random = seededRandom(seed);
    for (let i = cases.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [cases[i], cases[j]] = [cases[j], cases[i]];
    }
  }
  return cases.slice(0, limit);
}

function recognise(file: RawFile, name: string) {
  const object = file.kind === "object" ? attempt(file.records[0]) : undefined;
  const sample = parsed(file.records).take(SAMPLE).toArray();
  if (sample.length === 0) {
    const why = ({ parse }: RawRecord) => problem(parse)!;
    throw noneUsable(
      `In ${name}`,
      file.records.map((record, index) => ({ index, line: record.line, why: why(record) })),
    );
  }
  const layout = recogniseLayout(sample, object, name);
  if (!layout.member) return { layout, records: file.records, object };
  const records = file.member(layout.member) ?? [];
  if (records.length === 0) throw new InputError(`${name} holds no record in "${layout.member}"`);
  return { layout, records, object };
}

function readRecords(
  layout: Layout,
  records: readonly RawRecord[],
  object: Fields | undefined,
  options: LayoutOptions,
) {
  const prepared = layout.prepare?.(parsed(records), object);
  const remarks: Remarks = new Map();
  const cases: EditCase[] = [], unusable: Unusable[] = [];
  records.forEach((record, index) => {
    const { line } = record;
    const remarked = new Set<string>();
    const why = problem(() => {
      const parts = layout.read(record.parse(), {
        index,
        options,
        prepared,
        remark: (text) => void remarked.add(text),
        other: (offset) => attempt(records[(index + offset) % records.length]),
      });
      const { id = String(index), ...rest } = parts;
      cases.push({ id, index, line, ...rest });
    });
    if (why !== undefined) unusable.push({ index, line, why });
    else for (const text of remarked) addRemark(remarks, text, { index, line });
  });
  return { cases, unusable, remarks };
}

function* parsed(records: readonly RawRecord[]): Generator<Fields> {
  for (const record of records) {
    const fields = attempt(record);
    if (fields) yield fields;
  }
}

function attempt(record: RawRecord): Fields | undefined {
  let fields: Fields | undefined;
  problem(() => fields = record.parse());
  return fields;
}

/** Why something cannot be used; undefined where it can. */
function problem(run: () => unknown): string | undefined {
  try {
    run();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return error.message;
  }
}

/** Where something is: see {@link placesIn}. */
type Place = Pick<EditCase, "index" | "line">;

/** What is to be said about records, and about which. */
type Remarks = Map<string, Place[]>;

function addRemark(remarks: Remarks, text: string, place: Place): void {
  const list = remarks.get(text);
  if (list) list.push(place);
  else remarks.set(text, [place]);
}

function tell(remarks: Remarks, where: (places: readonly Place[]) => string): string[] {
  return [...remarks].map(([text, places]) =>
    `${places.length === 1 ? "1 record" : `${places.length} records`} (${where(places)}): ${text}`
  );
}

/**
 * How to name records of a file, the first five and how many more: by line, or by number from 1 where several
 * share a line.
 * @param all records of the file
 */
export function placesIn(all: readonly Place[]): (places: readonly Place[]) => string {
  const byLine = new Set(all.map(({ line }) => line)).size === all.length;
  return (places) => {
    const numbers = places.map(({ index, line }) => byLine ? line : index + 1);
    const more = numbers.length > 5 ? ` and ${numbers.length - 5} more` : "";
    const what = `${byLine ? "line" : "number"}${numbers.length === 1 ? "" : "s"}`;
    return `${what} ${numbers.slice(0, 5).join(", ")}${more}`;
  };
}

function noneUsable(begin: string, unusable: readonly Unusable[]): InputError {
  const [{ line, why }] = unusable;
  const alike = unusable.every((other) => other.why === why);
  const which = unusable.length === 1
    ? `its one record, in line ${line}, cannot be used`
    : `none of its ${unusable.length} records can be used${
      alike ? "" : `; the one in line ${line}, for instance`
    }`;
  return new InputError(`${begin} ${which}: ${why[0].toLowerCase()}${why.slice(1)}`);
}

/** Makes ids unique: the second "7" becomes "7#2". */
function numberIds(cases: EditCase[], remarks: Remarks): void {
  const taken = new Set(cases.map(({ id }) => id)), seen = new Set<string>();
  for (const one of cases) {
    if (seen.has(one.id)) {
      let n = 2;
      while (taken.has(`${one.id}#${n}`)) n++;
      one.id = `${one.id}#${n}`;
      taken.add(one.id);
      addRemark(remarks, "the id of an earlier record, which gets a number after it here", one);
    }
    seen.add(one.id);
  }
}

/** Cases that repeat the edits of an earlier one, and cases that contradict an earlier one. */
function compareEdits(cases: readonly EditCase[]): Pick<Dataset, "duplicates" | "conflicts"> {
  const same = new Map<string, string>(), targets = new Map<string, { target: string; id: string }>();
  const duplicates: Dataset["duplicates"] = [], conflicts: Dataset["conflicts"] = [];
  for (const { id, requests } of cases) {
    const key = JSON.stringify(requests.map((r) => JSON.stringify([r.prompt, r.subject, r.target])).sort());
    const first = same.get(key);
    if (first !== undefined) duplicates.push({ id, of: first });
    else same.set(key, id);
    const slots = requests.map((r) => ({ slot: JSON.stringify([r.prompt, r.subject]), target: r.target }));
    const other = slots.map(({ slot, target }) => {
      const known = targets.get(slot);
      return known && known.target !== target ? known.id : undefined;
    }).find((found) => found !== undefined);
    if (other !== undefined) conflicts.push({ id, of: other });
    for (const { slot, target } of slots) if (!targets.has(slot)) targets.set(slot, { target, id });
  }
  return { duplicates, conflicts };
}
