/**
 * From the bytes of a file to its records, each with its line: a JSON array, one JSON object, JSON objects line
 * by line, or a table (CSV, TSV) whose columns become texts by name.
 */
import { isUtf8 } from "node:buffer";
import { CsvError, parse as parseCsv } from "npm:csv-parse@7.0.3/sync";
import { InputError } from "../../engine/io/errors.ts";
import { isObject, refuseDuplicateKeys } from "../../engine/io/json.ts";
import { memberSpans, recordSpans, type Span } from "./json_spans.ts";

/** A record as it stands in the file. */
export interface RawRecord {
  line: number;
  /** @throws {InputError} saying why it is none: "The record …" */
  parse(): Record<string, unknown>;
}

/** What a file holds. */
export interface RawFile {
  kind: "array" | "object" | "lines" | "table";
  records: RawRecord[];
  /** Of a file that is one object: the records in one of its members. */
  member(name: string): RawRecord[] | undefined;
}

/** Bytes of one record at most; the longest of any known data set has some 100 kB. */
const MAX_RECORD = 2 ** 24;

/** Names that a table's header must have one of, to be told from a table without one. */
const COLUMNS = /^(prompt|subject|target|target_new|src|question)$/i;

/**
 * Splits a file.
 * @param name of the file, for error texts; its ending tells tables
 * @throws {InputError} when it is empty, not text, or not what it seems to be, naming the line
 */
export function splitRecords(bytes: Uint8Array, name: string): RawFile {
  const text = requireText(bytes, name);
  const first = text.find((byte) => !" \t\r\n".includes(String.fromCharCode(byte)));
  if (first === undefined) throw new InputError(`${name} is empty`);
  if (/\.(csv|tsv)$/i.test(name)) return table(text, name);
  if (!"[{".includes(String.fromCharCode(first))) {
    if (!/\.jsonl?$/i.test(name) && looksLikeTable(text)) return table(text, name);
    throw new InputError(`${name} holds neither JSON nor a table with a header line`, {
      hint: "Known are a JSON array of records, JSON objects line by line, and CSV or TSV",
    });
  }
  const { kind, spans } = recordSpans(text, name);
  const records = (spans: Span[]) => spans.map((span) => jsonRecord(text, span));
  return {
    kind,
    records: records(spans),
    member: (name) => {
      const found = kind === "object" ? memberSpans(text, name) : undefined;
      return found && records(found);
    },
  };
}

function jsonRecord(bytes: Uint8Array, { start, end, line }: Span): RawRecord {
  const parse = () => {
    if (end - start > MAX_RECORD) {
      throw new InputError(`The record has ${end - start} bytes; at most ${MAX_RECORD} are read`);
    }
    const text = new TextDecoder().decode(bytes.subarray(start, end));
    const value: unknown = JSON.parse(text);
    if (!isObject(value)) throw new InputError("The record is not an object");
    refuseDuplicateKeys(text, "the record");
    return value;
  };
  return { line, parse };
}

/** First bytes of files that people take for text. */
const FORMATS: [magic: string, what: string][] = [
  ["PK\x03\x04", "a zip archive"],
  ["\x1f\x8b", "compressed with gzip"],
  ["PAR1", "a Parquet file"],
  ["\x28\xb5\x2f\xfd", "compressed with zstd"],
];

/** The bytes without a byte-order mark. @throws {InputError} where they are not UTF-8 text */
function requireText(bytes: Uint8Array, name: string): Uint8Array {
  const start = String.fromCharCode(...bytes.subarray(0, 4));
  const format = FORMATS.find(([magic]) => start.startsWith(magic))?.[1];
  if (format) throw new InputError(`${name} is ${format}`, { hint: "Unpack it to JSON, JSONL or CSV first" });
  if (start.startsWith("\xff\xfe") || start.startsWith("\xfe\xff")) {
    throw new InputError(`${name} is UTF-16 text`, { hint: "Save it as UTF-8" });
  }
  const zero = bytes.indexOf(0);
  if (zero >= 0) throw new InputError(`${name} is not text: byte ${zero} is zero`);
  if (!isUtf8(bytes)) {
    throw new InputError(`${name} line ${badLine(bytes)} is not valid UTF-8`, { hint: "Save it as UTF-8" });
  }
  return start.startsWith("\xef\xbb\xbf") ? bytes.subarray(3) : bytes;
}

function badLine(bytes: Uint8Array): number {
  for (let start = 0, line = 1;; line++) {
    const at = bytes.indexOf(0x0a, start);
    if (at < 0 || !isUtf8(bytes.subarray(start, at))) return line;
    start = at + 1;
  }
}

function looksLikeTable(bytes: Uint8Array): boolean {
  const [line] = new TextDecoder().decode(bytes.subarray(0, 2000)).trimStart().split(/\r|\n/);
  return line.split(/[,;\t]/).some((cell) => COLUMNS.test(cell.replaceAll('"', "").trim()));
}

/** A table: the first row names the columns. */
function table(bytes: Uint8Array, name: string): RawFile {
  if (!looksLikeTable(bytes)) {
    throw new InputError(`${name} line 1 does not name the columns`, {
      hint: "The first line must be a header such as prompt,subject,target",
    });
  }
  // Lines are counted by line feeds alone.
  const text = new TextDecoder().decode(bytes).replaceAll(/\r\n?/g, "\n");
  const header = text.trimStart().split("\n")[0];
  const delimiter = header.includes("\t") ? "\t" : header.includes(",") || !header.includes(";") ? "," : ";";
  let rows: { record: string[]; info: { lines: number } }[];
  try {
    rows = parseCsv(text, {
      info: true,
      relax_column_count: true,
      skip_empty_lines: true,
      delimiter,
    }) as never;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    const what = error.code === "CSV_QUOTE_NOT_CLOSED"
      ? "a quote is opened and never closed"
      : "a quote stands inside a cell; quotes go around the whole cell and are doubled in it";
    throw new InputError(`${name} line ${error.lines}: ${what}`);
  }
  const [first, ...rest] = rows;
  const columns = first.record.map((column) => column.trim());
  const repeated = columns.find((column, i) => column !== "" && columns.indexOf(column) !== i);
  if (repeated) throw new InputError(`${name} line 1 names the column "${repeated}" twice`);
  const records = rest.map(({ record, info }): RawRecord => ({
    // The parser counts the last line of a row.
    line: info.lines - record.join("").split("\n").length + 1,
    parse: () => {
      if (record.length !== columns.length) {
        throw new InputError(`The row has ${record.length} columns; the header has ${columns.length}`);
      }
      const filled = columns.map((column, i) => [column, record[i]]).filter(([, cell]) => cell.trim() !== "");
      return Object.fromEntries(filled);
    },
  }));
  return { kind: "table", records, member: () => undefined };
}
