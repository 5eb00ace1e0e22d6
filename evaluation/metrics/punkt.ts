/**
 * English sentence boundaries as NLTK's `sent_tokenize` finds them: Punkt (Kiss & Strunk 2006, "Unsupervised
 * Multilingual Sentence Boundary Detection"), with the behaviour of NLTK 3.7 to 3.9.2 and the parameters of its
 * English model. A full stop ends a sentence unless its word is a known abbreviation, an initial or a number
 * and nothing about the next word says otherwise.
 */
import english from "./punkt_english.json" with { type: "json" };

const words = (list: string): Set<string> => new Set(list.split(" "));
const ABBREVIATIONS = new Set(english.abbreviations);
const COLLOCATIONS = new Set(english.collocations);
const STARTERS = new Set(english.starters);
/** Words seen with a small first letter; of these, those never seen with a capital inside a sentence ... */
const LOWER = words(`${english.lower} ${english.lower_upper_inside}`);
const UPPER_INSIDE = words(english.lower_upper_inside);
/** ... and those seen small at a sentence's start, and never with a capital. */
const LOWER_AT_START = words(english.lower_at_start);

const SPACE = "\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORD = "[\\p{L}\\p{N}_]";

/** A regular expression with `\s`, `\S`, `\w`, `\d` and `\b` as Python means them. */
export function python(source: string, flags = "gu"): RegExp {
  const classes: Record<string, string> = {
    s: `[${SPACE}]`,
    S: `[^${SPACE}]`,
    w: WORD,
    d: "\\p{Nd}",
    b: `(?:(?<=${WORD})(?!${WORD})|(?<!${WORD})(?=${WORD}))`,
  };
  return new RegExp(source.replace(/\\([sSwdb])/g, (_, name) => classes[name]), flags);
}

const NON_WORD = `[)";}\\]*:@'({\\[?!]`;
const MULTI_CHAR = "(?:-{2,}|\\.{2,}|(?:\\.\\s){2,}\\.)";
const TOKEN = python(
  `${MULTI_CHAR}|(?=[^("\`{\\[:;&#*@)}\\]\\-,])\\S+?` +
    `(?=\\s|$|${NON_WORD}|${MULTI_CHAR}|,(?=$|\\s|${NON_WORD}|${MULTI_CHAR}))|\\S`,
);
const CANDIDATE = python(`[.?!](?=(?<after>${NON_WORD}|\\s+(?<next>\\S+)))`);
/** Closing punctuation that still belongs to the sentence before. */
const CLOSING = python(`["')\\]}]+?(?:\\s+|(?=--)|(?=\\n)|$)`, "uy");
const NUMBER = python("^-?[.,]?\\d[\\d,.-]*\\.?$", "u");
const INITIAL = /^[\p{L}\p{Nl}\p{No}_]\.$/u;
const TRAILING_SPACE = python("\\s+$", "u");

/** The sentences of a text, in order, without the white space between them. */
export function sentences(text: string): string[] {
  const out: string[] = [];
  let dropped = 0;
  const slices = sentenceSlices(text);
  for (const [i, { start, end }] of slices.entries()) {
    const from = start + dropped, next = slices[i + 1];
    dropped = 0;
    CLOSING.lastIndex = 0;
    const closing = next && CLOSING.exec(text.slice(next.start, next.end));
    if (closing) {
      out.push(text.slice(from, next.start + trimEnd(closing[0]).length));
      dropped = closing[0].length;
    } else if (from < end) out.push(text.slice(from, end));
  }
  return out;
}

function trimEnd(text: string): string {
  return text.replace(TRAILING_SPACE, "");
}

interface Slice {
  start: number;
  end: number;
}

function sentenceSlices(text: string): Slice[] {
  const out: Slice[] = [];
  let start = 0;
  for (const { end, next, context } of candidates(text)) {
    if (!hasBreak(context)) continue;
    out.push({ start, end });
    start = next ?? end;
  }
  return [...out, { start, end: trimEnd(text).length }];
}

interface Candidate {
  /** Just after the full stop, question or exclamation mark. */
  end: number;
  /** Where the next word starts, if white space comes between. */
  next?: number;
  /** The word before, the mark, and what follows. */
  context: string;
}

/** Marks that may end a sentence; of several at one word only the last. */
function candidates(text: string): Candidate[] {
  const out: Candidate[] = [];
  let word: Slice = { start: 0, end: 0 };
  let last: Candidate | undefined;
  for (const { index, groups } of text.matchAll(CANDIDATE)) {
    const before = text.slice(word.end, index);
    // As in NLTK, white space at the very start of this stretch does not count.
    const space = before.search(/[ \t-\r][^ \t-\r]*$/);
    const here = { start: space > 0 ? word.end + space + 1 : word.start, end: index };
    if (last && word.end <= here.start) out.push(last);
    const { after, next } = groups!;
    const end = index + 1;
    last = {
      end,
      next: next === undefined ? undefined : end + after.length - next.length,
      context: text.slice(here.start, end) + after,
    };
    word = here;
  }
  return last ? [...out, last] : out;
}

interface Token {
  text: string;
  /** Lower-cased, with numbers as one type. */
  type: string;
  breaks: boolean;
  abbreviation: boolean;
}

function hasBreak(context: string): boolean {
  const tokens = context.split("\n").flatMap((line) => line.match(TOKEN) ?? []).map(firstPass);
  tokens.slice(0, -1).forEach((token, i) => secondPass(token, tokens[i + 1]));
  return tokens.slice(0, -1).some(({ breaks }) => breaks);
}

/** Decides by the word alone. */
function firstPass(text: string): Token {
  const token = {
    text,
    type: text.toLowerCase().replace(NUMBER, "##number##"),
    breaks: false,
    abbreviation: false,
  };
  if ([".", "?", "!"].includes(text)) token.breaks = true;
  else if (/^\.\.+$/.test(text)) token.abbreviation = true;
  else if (text.endsWith(".") && !text.endsWith("..")) {
    const bare = text.slice(0, -1).toLowerCase();
    token.abbreviation = ABBREVIATIONS.has(bare) || ABBREVIATIONS.has(bare.split("-").at(-1)!);
    token.breaks = !token.abbreviation;
  }
  return token;
}

/** Decides again by the next word (sections 4.1 to 4.3 of the paper). */
function secondPass(token: Token, next: Token): void {
  if (!token.text.endsWith(".")) return;
  const type = withoutStop(token.type);
  const nextType = next.breaks ? withoutStop(next.type) : next.type;
  const initial = INITIAL.test(token.text);
  const keep = () => Object.assign(token, { breaks: false, abbreviation: true });
  if (COLLOCATIONS.has(`${type}|${nextType}`)) return void keep();
  const starts = startsSentence(next, nextType);
  const capital = /^\p{Uppercase}/u.test(next.text);
  if (token.abbreviation && !initial && (starts || capital && STARTERS.has(nextType))) {
    token.breaks = true;
    return;
  }
  if (!initial && type !== "##number##") return;
  if (starts === false || starts === undefined && initial && capital && !LOWER.has(nextType)) keep();
}

function withoutStop(type: string): string {
  return type.length > 1 && type.endsWith(".") ? type.slice(0, -1) : type;
}

/** The orthographic heuristic; `undefined` when a word's letters do not tell. */
function startsSentence({ text }: Token, type: string): boolean | undefined {
  if (/^[;:,.!?]$/.test(text)) return false;
  if (/^\p{Uppercase}/u.test(text) && LOWER.has(type) && !UPPER_INSIDE.has(type)) return true;
  if (/^\p{Lowercase}/u.test(text) && !LOWER_AT_START.has(type)) return false;
  return undefined;
}
