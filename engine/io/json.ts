/**
 * JSON as an input format: parse errors become one clear sentence, and repeated keys, which JSON.parse
 * silently resolves to the last one, can be refused.
 */
import { InputError, show } from "./errors.ts";

/**
 * Parses JSON that must be an object.
 * @param where what is being parsed, for the error message ("the header of x.safetensors")
 * @throws InputError when it is not JSON or not an object
 */
export function parseJsonObject(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read ${where}: ${(error as Error).message}`, { cause: error });
  }
  if (!isObject(value)) throw new InputError(`Cannot read ${where}: expected a JSON object`);
  return value;
}

/** Whether a parsed JSON value is an object (not null, not an array). */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Throws when any object in `text` has the same key twice.
 * @param text valid JSON (parse it first; the scan relies on its syntax)
 * @throws InputError naming the key
 */
export function refuseDuplicateKeys(text: string, where: string): void {
  // One Set for each open object, undefined for each open array.
  const open: (Set<string> | undefined)[] = [];
  const colon = /\s*:/y;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "{") open.push(new Set());
    else if (c === "[") open.push(undefined);
    else if (c === "}" || c === "]") open.pop();
    else if (c === '"') {
      const end = endOfString(text, i);
      const keys = open.at(-1);
      colon.lastIndex = end + 1;
      if (keys !== undefined && colon.test(text)) {
        const key = JSON.parse(text.slice(i, end + 1)) as string;
        if (keys.has(key)) throw new InputError(`Cannot read ${where}: the key ${show(key)} appears twice`);
        keys.add(key);
      }
      i = end;
    }
  }
}

/** Index of the quote that closes the string opened at `start`. */
function endOfString(text: string, start: number): number {
  let i = start + 1;
  while (text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
  return i;
}
