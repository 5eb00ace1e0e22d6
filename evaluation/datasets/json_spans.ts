/**
 * Where the values of a JSON file are: byte ranges with line numbers, found by a strict reading of the grammar
 * (RFC 8259) without building anything. So a file may be larger than the longest string, every record knows
 * its line, and a syntax error names line and column. Bytes must be valid UTF-8.
 */
import { InputError } from "../../engine/io/errors.ts";

/** A value in the file. */
export interface Span {
  /** Bytes from `start` up to `end`. */
  start: number;
  end: number;
  /** Line of its first byte, from 1. */
  line: number;
}

/** How the records of a file are laid out. */
export interface JsonRecords {
  /** One array; one object; or objects one after the other, as in JSONL. */
  kind: "array" | "object" | "lines";
  spans: Span[];
}

/** Arrays and objects inside each other at most; data sets have six. */
const MAX_DEPTH = 64;

const QUOTE = 0x22, BACKSLASH = 0x5c, COMMA = 0x2c, COLON = 0x3a, NEWLINE = 0x0a;
const OPEN_ARRAY = 0x5b, CLOSE_ARRAY = 0x5d, OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d;

/**
 * Finds the records of a file.
 * @param where the file's name, for error texts
 * @throws {InputError} with line and column of the first place that is not JSON
 */
export function recordSpans(bytes: Uint8Array, where: string): JsonRecords {
  const scan = scanner(bytes, where);
  scan.space();
  if (scan.peek() === OPEN_ARRAY) {
    const spans = scan.elements();
    scan.end();
    return { kind: "array", spans };
  }
  const spans: Span[] = [];
  for (; scan.peek() !== undefined; scan.space()) {
    if ([COMMA, CLOSE_ARRAY, CLOSE_OBJECT].includes(scan.peek()!)) scan.fail("the end or another record");
    spans.push(scan.value());
  }
  return { kind: spans.length === 1 ? "object" : "lines", spans };
}

/**
 * The elements of an array that is a member of the file's one object; undefined where it is not there or no
 * array.
 * @param bytes of a file that {@link recordSpans} has read
 */
export function memberSpans(bytes: Uint8Array, name: string): Span[] | undefined {
  const scan = scanner(bytes, "");
  scan.space();
  let found: Span[] | undefined;
  scan.members((key) => {
    if (key !== name || scan.peek() !== OPEN_ARRAY) scan.value();
    else found = scan.elements();
  });
  return found;
}

function scanner(bytes: Uint8Array, where: string) {
  let at = 0, line = 1, depth = 0;

  const peek = (): number | undefined => bytes[at];

  function space(): void {
    for (;; at++) {
      const c = bytes[at];
      if (c === NEWLINE) line++;
      else if (c !== 0x20 && c !== 0x0d && c !== 0x09) return;
    }
  }

  function fail(expected: string): never {
    const lineStart = bytes.lastIndexOf(NEWLINE, at - 1) + 1;
    const column = decode(bytes.subarray(at > 0 ? lineStart : 0, at)).length + 1;
    if (at >= bytes.length) {
      throw new InputError(`${where} ends too early, in line ${line}: expected ${expected}`, {
        hint: "The file is cut off, perhaps by an interrupted download",
      });
    }
    throw new InputError(`${where} line ${line} column ${column}: expected ${expected}, got ${got()}`);
  }

  /** The character at hand, for an error text. */
  function got(): string {
    const [character] = decode(bytes.subarray(at, at + 4));
    return character < " " ? character === "\n" ? "a line break" : "a control character" : `'${character}'`;
  }

  function enter(): void {
    if (++depth > MAX_DEPTH) {
      throw new InputError(`${where} line ${line} nests more than ${MAX_DEPTH} arrays and objects`);
    }
    at++;
    space();
  }

  /** Reads an array and says where its elements are. */
  function elements(keep = true): Span[] {
    const spans: Span[] = [];
    enter();
    for (let first = true; peek() !== CLOSE_ARRAY; first = false) {
      if (!first) {
        if (peek() !== COMMA) fail("',' or ']'");
        at++;
        space();
      }
      const span = value();
      if (keep) spans.push(span);
      space();
    }
    at++;
    depth--;
    return spans;
  }

  /** Reads an object; `member` must read the value that comes next. */
  function members(member: (key: string | undefined) => void, named = true): void {
    enter();
    for (let first = true; peek() !== CLOSE_OBJECT; first = false) {
      if (!first) {
        if (peek() !== COMMA) fail("',' or '}'");
        at++;
        space();
      }
      if (peek() !== QUOTE) fail("a key in double quotes");
      const start = at;
      string();
      const key = named ? JSON.parse(decode(bytes.subarray(start, at))) : undefined;
      space();
      if (peek() !== COLON) fail("':' after a key");
      at++;
      space();
      member(key);
      space();
    }
    at++;
    depth--;
  }

  const anyMember = () => void value();

  /** Reads any value. */
  function value(): Span {
    const start = at, from = line, c = peek();
    if (c === OPEN_OBJECT) members(anyMember, false);
    else if (c === OPEN_ARRAY) elements(false);
    else if (c === QUOTE) string();
    else word();
    return { start, end: at, line: from };
  }

  function string(): void {
    for (at++; bytes[at] !== QUOTE; at++) {
      const c = bytes[at];
      if (c === undefined || c < 0x20) fail("'\"' at the end of a text");
      if (c === BACKSLASH) escape();
    }
    at++;
  }

  /** Leaves `at` on the escape's last character. */
  function escape(): void {
    const c = bytes[++at];
    if (c === 0x75) {
      for (let i = 0; i < 4; i++) {
        at++;
        if (!/[0-9a-f]/i.test(String.fromCharCode(bytes[at] ?? 0))) {
          fail("four hexadecimal digits after '\\u'");
        }
      }
    } else if (c === undefined || !'"\\/bfnrt'.includes(String.fromCharCode(c))) fail("an escape after '\\'");
  }

  function word(): void {
    const start = at;
    while (/[-+.\w]/.test(String.fromCharCode(bytes[at] ?? 0))) at++;
    if (/^(true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?)$/.test(decode(bytes.subarray(start, at)))) {
      return;
    }
    if (at < bytes.length) at = start;
    fail("a value");
  }

  function end(): void {
    space();
    if (peek() !== undefined) fail("the end of the file");
  }

  return { peek, space, fail, elements, members, value, end };
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
