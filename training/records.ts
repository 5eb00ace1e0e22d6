/**
 * Examples from a file, in the layouts that editors are trained with: zsRE as MEND has it (`src`, `alt`, `rephrase`,
 * `loc`, `loc_ans`), CounterFact (`requested_rewrite`), and EasyEdit's CounterFact (`prompt`, `rephrase_prompt`,
 * `locality_prompt`). Records are parsed when they are drawn; each is checked once before anything is trained, for
 * an editor that never saw what must stay does not learn to leave it.
 */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { InputError } from "../engine/io/errors.ts";
import { placesIn } from "../evaluation/datasets/read.ts";
import { type RawRecord, splitRecords } from "../evaluation/datasets/records.ts";
import { readSource } from "../evaluation/datasets/sources.ts";
import type { ExampleSource, TextExample } from "./source.ts";
import type { Withheld } from "./without.ts";

type Fields = Record<string, unknown>;

/** A record's texts; where there are several, one is drawn. */
export interface Parts {
  subject?: string;
  prompt: string;
  alt: string[];
  rephrases: string[];
  loc: { prompt: string; answer: string }[];
  before?: string;
}

interface Layout {
  name: string;
  recognise(record: Fields): boolean;
  /** @throws {InputError} "has an empty loc" */
  read(record: Fields): Parts;
}

/** A text that is there. */
function text(record: Fields, ...keys: string[]): string {
  const [found] = texts(record, ...keys);
  return found;
}

/** One or more texts under the first of the names. */
function texts(record: Fields, ...keys: string[]): string[] {
  const key = keys.find((key) => record[key] !== undefined) ?? keys[0];
  const value = record[key];
  if (value === undefined || value === null) throw new InputError(`has no "${keys[0]}"`);
  const list = [value].flat().filter((item): item is string =>
    typeof item === "string" && item.trim() !== ""
  );
  if (list.length === 0) throw new InputError(`has an empty "${key}"`);
  return list;
}

/** The first of some texts that is there. */
function known(...values: unknown[]): string | undefined {
  return values.flat().find((value): value is string => typeof value === "string" && value.trim() !== "");
}

/** MEND's mark of an unrelated question is no part of the question. */
function question(text: string): string {
  const bare = text.replace(/^\s*nq question:\s*/i, "").trim();
  return /[?.!]$/.test(bare) ? bare : `${bare}?`;
}

const zsre: Layout = {
  name: "zsRE (MEND)",
  recognise: (r) => "src" in r,
  read: (r) => ({
    subject: known(r.subject),
    prompt: text(r, "src"),
    alt: texts(r, "alt"),
    rephrases: texts(r, "rephrase"),
    loc: [{ prompt: question(text(r, "loc")), answer: text(r, "loc_ans") }],
    before: known(r.pred, r.answers),
  }),
};

const counterFact: Layout = {
  name: "CounterFact (ROME)",
  recognise: (r) => "requested_rewrite" in r,
  read(r) {
    const rewrite = r.requested_rewrite as Fields & { target_new?: Fields; target_true?: Fields };
    const subject = text(rewrite, "subject"), truth = text(rewrite.target_true ?? {}, "str");
    return {
      subject,
      prompt: text(rewrite, "prompt").replace("{}", subject),
      alt: texts(rewrite.target_new ?? {}, "str"),
      rephrases: texts(r, "paraphrase_prompts"),
      loc: texts(r, "neighborhood_prompts").map((prompt) => ({ prompt, answer: truth })),
      before: truth,
    };
  },
};

const easyEdit: Layout = {
  name: "CounterFact (EasyEdit)",
  recognise: (r) => "target_new" in r && "prompt" in r,
  read: (r) => ({
    subject: known(r.subject),
    prompt: text(r, "prompt"),
    alt: texts(r, "target_new"),
    rephrases: texts(r, "rephrase_prompt"),
    loc: [{ prompt: text(r, "locality_prompt"), answer: text(r, "locality_ground_truth") }],
    before: known(r.ground_truth),
  }),
};

const LAYOUTS = [zsre, counterFact, easyEdit];

/** Where there is no validation file, every n-th record is kept for validation. */
const VALIDATION = 12;

/** Which records of a file are left out. */
export interface RecordOptions {
  /** Those that cannot be used, instead of refusing their file. */
  skipIncomplete?: boolean;
  /** Those about facts that will be evaluated on. */
  without?: Withheld;
  /** Told what is left out, a sentence each. */
  note?: (text: string) => void;
}

/** The records of a file, those for validation apart. @throws {InputError} naming lines that cannot be used */
export async function fileSources(
  path: string,
  options: RecordOptions = {},
): Promise<{ train: ExampleSource; validation: ExampleSource }> {
  const all = await readRecords(path, options);
  const kept = (i: number) => i % VALIDATION === VALIDATION - 1;
  if (all.records.length < 2) throw new InputError(`${path} holds one record: none is left to validate with`);
  const small = all.records.length < VALIDATION;
  const of = (name: string, keep: (i: number) => boolean) =>
    sourceOf({ ...all, name, records: all.records.filter((_, i) => keep(i)) });
  return {
    train: of(all.name, (i) => small ? i < all.records.length - 1 : !kept(i)),
    validation: of(`${all.name} (held out)`, (i) => small ? i === all.records.length - 1 : kept(i)),
  };
}

/** All records of a file. @throws {InputError} as {@link fileSources} */
export async function fileSource(path: string, options: RecordOptions = {}): Promise<ExampleSource> {
  return sourceOf(await readRecords(path, options));
}

/**
 * The texts of all records of a file.
 * @param check throws an InputError ("has no subject") for a record that cannot be used
 * @throws {InputError} as {@link fileSources}
 */
export async function fileParts(
  path: string,
  check: (parts: Parts) => void,
  options: RecordOptions = {},
): Promise<Parts[]> {
  const { layout, records } = await readRecords(path, options, check);
  return records.map((record) => layout.read(record.parse()));
}

interface Records {
  name: string;
  hash: string;
  layout: Layout;
  records: RawRecord[];
}

async function readRecords(
  path: string,
  { skipIncomplete, without, note = () => {} }: RecordOptions,
  check?: (parts: Parts) => void,
): Promise<Records> {
  const { bytes } = await readSource(path);
  const name = basename(path);
  const { records } = splitRecords(bytes, name);
  if (records.length === 0) throw new InputError(`${name} holds no record`);
  const first = records[0].parse();
  const layout = LAYOUTS.find((layout) => layout.recognise(first));
  if (!layout) {
    throw new InputError(`${name} is in no layout that editors are trained with`, {
      hint: `Known are ${LAYOUTS.map(({ name }) => name).join(", ")}`,
    });
  }
  const withheld = new Set<RawRecord>();
  const { usable, problems } = sorted(records, (raw) => {
    const parts = layout.read(raw.parse());
    if (without?.holds(parts)) withheld.add(raw);
    else check?.(parts);
  });
  if (problems && (!skipIncomplete || usable.length === 0)) {
    throw new InputError(`${name} cannot be trained with. ${problems}`, {
      hint: "Every record needs its edit, another wording of it, and something unrelated that must stay" +
        (usable.length > 0 ? "; --skip-incomplete leaves such records out" : ""),
    });
  }
  if (problems) note(`left out of ${name}: ${problems}`);
  const kept = usable.filter((raw) => !withheld.has(raw));
  if (without) {
    note(
      `left out of ${name}: ${withheld.size} record${
        withheld.size === 1 ? "" : "s"
      } about what ${without.name} edits`,
    );
  }
  if (kept.length === 0) throw new InputError(`${name} holds nothing but what ${without!.name} edits`);
  const hash = createHash("sha256").update(bytes).update(without?.hash ?? "").digest("hex");
  return { name, hash, layout, records: kept };
}

/** Those records that pass, and which others there are with what they lack. */
function sorted(
  records: readonly RawRecord[],
  check: (record: RawRecord) => void,
): { usable: RawRecord[]; problems: string } {
  const usable: RawRecord[] = [];
  const places = records.map(({ line }, index) => ({ line, index }));
  const found = new Map<string, typeof places>();
  for (const [i, record] of records.entries()) {
    try {
      check(record);
      usable.push(record);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      found.set(error.message, [...found.get(error.message) ?? [], places[i]]);
    }
  }
  const where = placesIn(places);
  const told = [...found].map(([what, at]) => `${where(at)}: the record ${what.replace(/^The record /, "")}`);
  return { usable, problems: told.join("; ") };
}

function sourceOf({ name, hash, layout, records }: Records): ExampleSource {
  const pick = <T>(list: readonly T[], random: () => number) => list[Math.floor(random() * list.length)];
  return {
    name,
    hash,
    count: records.length,
    notes: [`Layout: ${layout.name}`],
    make(record, random): TextExample {
      const { prompt, alt, rephrases, loc, before } = layout.read(records[record].parse());
      const answer = pick(alt, random);
      return {
        edit: { prompt, answer },
        outer: { prompt: pick(rephrases, random), answer },
        loc: pick(loc, random),
        before,
      };
    },
  };
}
