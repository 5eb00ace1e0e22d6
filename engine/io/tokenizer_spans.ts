/**
 * Where each token lies in the text. The tokenizer library gives no offsets, so tokens are turned back
 * into bytes and laid over the bytes of the (normalised) text. Spans keep a token's leading space and
 * cover whole characters: the two tokens of a split emoji both span all of it, as in the Rust library.
 */

/** A token to place: its bytes, or the text of an added token. Unknown tokens have no bytes. */
export interface Piece {
  bytes: Uint8Array | undefined;
  added: boolean;
}

/** Half-open range of UTF-16 units of the text. */
export type Span = [start: number, end: number];

/** The normalised text as bytes, with the range of the text that each byte comes from. */
interface Laid {
  bytes: Uint8Array;
  starts: Int32Array;
  ends: Int32Array;
  length: number;
}

/**
 * Places tokens in order.
 * @param text the text that was encoded
 * @param pieces its tokens, without the special ones that the tokenizer adds around the text
 * @param normalise what the tokenizer does to a character's spelling, or undefined for nothing
 * @param metaspace "▁" in the text counts as a space, as it does in SentencePiece vocabularies
 */
export function placeTokens(
  text: string,
  pieces: Piece[],
  normalise: ((part: string) => string) | undefined,
  metaspace: boolean,
): Span[] {
  const laid = lay(text, normalise, metaspace);
  const spans: Span[] = [];
  let at = 0;
  for (let i = 0; i < pieces.length;) {
    let end = i;
    if (pieces[i].added) end++;
    else while (end < pieces.length && !pieces[end].added) end++;
    at = placeRun(laid, pieces.slice(i, end), at, spans);
    i = end;
  }
  return spans;
}

/** Places a run without added tokens in it (or a single added one) from byte `at`; returns where it ends. */
function placeRun(laid: Laid, run: Piece[], at: number, spans: Span[]): number {
  const whole = concat(run);
  let bytes = run.map((piece) => piece.bytes);
  if (whole !== undefined && !matches(laid.bytes, at, whole)) {
    // SentencePiece puts a space before a text: the first token then has a byte that the text has not.
    if (whole[0] === 0x20 && matches(laid.bytes, at, whole.subarray(1))) {
      bytes = [bytes[0]!.subarray(1), ...bytes.slice(1)];
    } else {
      return placeLoosely(laid, bytes, at, spans);
    }
  } else if (whole === undefined) {
    return placeLoosely(laid, bytes, at, spans);
  }
  for (const part of bytes) {
    spans.push(spanOf(laid, at, at + part!.length));
    at += part!.length;
  }
  return at;
}

/** How far ahead a token is looked for after text that no token accounts for, in bytes. */
const LOOK_AHEAD = 256;

/**
 * For text that the tokenizer changed or dropped parts of: each token is looked for from where the last
 * one ended. A token that is not found (an unknown one) gets the gap before the next found one.
 */
function placeLoosely(laid: Laid, run: (Uint8Array | undefined)[], at: number, spans: Span[]): number {
  const places: ([number, number] | undefined)[] = [];
  let end = at;
  for (const bytes of run) {
    const found = bytes === undefined ? undefined : seek(laid.bytes, bytes, end);
    places.push(found);
    if (found !== undefined) end = found[1];
  }
  let before = at;
  for (let i = 0; i < run.length; i++) {
    const next = places.slice(i).find((place) => place !== undefined)?.[0] ?? laid.bytes.length;
    const [from, to] = places[i] ?? [before, Math.max(before, next)];
    spans.push(spanOf(laid, from, to));
    before = to;
  }
  return Math.max(end, before);
}

function seek(text: Uint8Array, bytes: Uint8Array, from: number): [number, number] | undefined {
  const bare = bytes[0] === 0x20 && bytes.length > 1 ? bytes.subarray(1) : undefined;
  const last = Math.min(text.length, from + LOOK_AHEAD);
  for (let at = from; at < last; at++) {
    if (matches(text, at, bytes)) return [at, at + bytes.length];
    if (bare !== undefined && matches(text, at, bare)) return [at, at + bare.length];
  }
  return undefined;
}

function lay(text: string, normalise: ((part: string) => string) | undefined, metaspace: boolean): Laid {
  const bytes: number[] = [], starts: number[] = [], ends: number[] = [];
  const utf8 = new TextEncoder();
  const push = (char: string, start: number, end: number) => {
    for (const byte of utf8.encode(metaspace && char === "▁" ? " " : char)) {
      bytes.push(byte);
      starts.push(start);
      ends.push(end);
    }
  };
  const changed = normalise !== undefined && normalise(text) !== text;
  // Normalisation works within grapheme clusters; a changed one maps to its source as a whole.
  const parts = changed
    ? [...new Intl.Segmenter("und", { granularity: "grapheme" }).segment(text)]
    : [{ segment: text, index: 0 }];
  for (const { segment, index } of parts) {
    const normal = changed ? normalise(segment) : segment;
    let start = index;
    for (const char of normal) {
      if (normal === segment) push(char, start, start + char.length);
      else push(char, index, index + segment.length);
      start += char.length;
    }
  }
  return {
    bytes: Uint8Array.from(bytes),
    starts: Int32Array.from(starts),
    ends: Int32Array.from(ends),
    length: text.length,
  };
}

function spanOf({ bytes, starts, ends, length }: Laid, from: number, to: number): Span {
  if (from < to) return [starts[from], ends[to - 1]];
  const point = from < bytes.length ? starts[from] : length;
  return [point, point];
}

function concat(run: Piece[]): Uint8Array | undefined {
  if (run.some((piece) => piece.bytes === undefined)) return undefined;
  const whole = new Uint8Array(run.reduce((sum, piece) => sum + piece.bytes!.length, 0));
  let at = 0;
  for (const { bytes } of run) {
    whole.set(bytes!, at);
    at += bytes!.length;
  }
  return whole;
}

function matches(text: Uint8Array, at: number, bytes: Uint8Array): boolean {
  if (at + bytes.length > text.length) return false;
  for (let i = 0; i < bytes.length; i++) if (text[at + i] !== bytes[i]) return false;
  return true;
}
