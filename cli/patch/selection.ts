/** `--without N|FILE`: which patches of a stack are meant. */
import { InputError } from "../../engine/io/errors.ts";
import { type Patch, readPatch } from "../../patches/patch.ts";
import { findParts, partsOf } from "../../patches/stack.ts";

/**
 * Reads what `--without` names; the result finds it in a stack.
 * @returns numbers, from 1, of the parts of a stack; it throws {@link InputError} where there is no such part
 */
export async function readSelection(wanted: readonly string[]): Promise<(stack: Patch) => number[]> {
  const items = await Promise.all(
    wanted.map(async (item) =>
      /^\d+$/.test(item) ? Number(item) : { name: item, patch: await readPatch(item) }
    ),
  );
  return (stack) => {
    const count = partsOf(stack).length;
    const numbers = items.flatMap((item) => {
      if (typeof item !== "number") return findParts(stack, item.patch, item.name);
      if (item >= 1 && item <= count) return [item];
      throw new InputError(`There is no patch ${item}: there ${count === 1 ? "is 1" : `are ${count}`}`);
    });
    return [...new Set(numbers)];
  };
}
