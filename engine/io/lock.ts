/** One writer at a time in a folder that a work goes on in. */
import { join } from "node:path";
import { InputError } from "./errors.ts";

/**
 * Locks a folder by a file in it, which must be there and is never replaced. The lock ends with the process, however
 * that ends; nobody else is kept from reading. Where the file system knows no locks there is none.
 * @throws {InputError} when another process writes there
 */
export async function lockFolder(path: string, file: string): Promise<Disposable> {
  // A folder that may only be read needs no lock: nothing can be written there.
  const handle = await Deno.open(join(path, file), { write: true }).catch((error) => {
    if (error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  });
  if (!handle) return { [Symbol.dispose]() {} };
  if (await handle.tryLock(true).catch(() => true)) return handle;
  handle.close();
  throw new InputError(`Another process is writing ${path}`, {
    hint: "Wait until it ends, or name another folder",
  });
}
