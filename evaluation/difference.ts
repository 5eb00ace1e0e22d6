/** Where two configurations part: for the sentences that refuse to continue one run as another, or to merge two. */
import { isObject } from "../engine/io/json.ts";

/** The first key in which two JSON values differ, dotted, with both values; nothing where they are the same. */
export function difference(
  a: unknown,
  b: unknown,
  key = "",
): { key: string; a: unknown; b: unknown } | undefined {
  if (!isObject(a) || !isObject(b)) {
    return JSON.stringify(a) === JSON.stringify(b) ? undefined : { key: key || "configuration", a, b };
  }
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const found = difference(a[name], b[name], key ? `${key}.${name}` : name);
    if (found) return found;
  }
}

/** A value for an error text, at most 60 characters. */
export function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}
