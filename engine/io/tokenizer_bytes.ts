/**
 * The two alphabets in which vocabularies spell bytes: GPT-2's byte-level characters, and
 * SentencePiece's "▁" for a space with `<0xNN>` for single bytes.
 */

/** GPT-2's table: byte → the printable character that stands for it (openai/gpt-2, encoder.py). */
export const BYTE_TO_CHAR: readonly string[] = byteAlphabet();

/** The inverse of `BYTE_TO_CHAR`. */
export const CHAR_TO_BYTE: ReadonlyMap<string, number> = new Map(
  BYTE_TO_CHAR.map((char, byte) => [char, byte]),
);

function byteAlphabet(): string[] {
  const printable = (byte: number) => byte >= 33 && byte <= 126 || byte >= 161 && byte <= 172 || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

const utf8 = new TextEncoder();

/** Bytes of a token spelled in the byte-level alphabet; a character outside it stands for itself. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of token) {
    const byte = CHAR_TO_BYTE.get(char);
    if (byte === undefined) bytes.push(...utf8.encode(char));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** Bytes of a SentencePiece token: "▁" is a space, `<0xNN>` is one byte. */
export function metaspaceBytes(token: string): Uint8Array {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
  return byte === null ? utf8.encode(token.replaceAll("▁", " ")) : Uint8Array.of(parseInt(byte[1], 16));
}

/** A token's bytes as readable text; bytes that are not whole UTF-8 characters show as `<0xNN>`. */
export function readable(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes, (byte) => {
      const hex = byte.toString(16).toUpperCase().padStart(2, "0");
      return byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `<0x${hex}>`;
    }).join("");
  }
}
