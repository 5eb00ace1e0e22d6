/** Checks of what a command will write, made before any work: a file is only replaced by one of its kind. */
import { checkWritable } from "../engine/io/atomic.ts";
import { InputError } from "../engine/io/errors.ts";

/**
 * Makes sure that a file can be written, and that what it would replace is an earlier one of its kind.
 * @param what "a patch", for the error text
 * @param read reads a file of that kind and throws for anything else
 * @throws {InputError} naming the file
 */
export async function checkOutput(
  path: string,
  what: string,
  read: (path: string) => Promise<unknown>,
): Promise<void> {
  await checkWritable(path);
  if (!await Deno.stat(path).then(() => true, () => false)) return;
  await read(path).catch((cause) => {
    throw new InputError(`Cannot replace ${path}: it is not ${what}`, {
      hint: "Name a new file",
      cause,
    });
  });
}
