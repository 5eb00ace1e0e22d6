/** JSON whose text depends on the value alone, for files whose bytes do, and for comparing values. */
import { isObject } from "../engine/io/json.ts";

/** JSON with every object's keys in order, so that equal values are equal texts. */
export function canonical(value: unknown): string {
  const sorted = (_: string, item: unknown) =>
    isObject(item) ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => a < b ? -1 : 1)) : item;
  return JSON.stringify(value, sorted);
}
