/**
 * Output that is whole or absent. Files and folders are built under a temporary name beside their
 * destination, flushed to the disk, and renamed into place; on failure the temporary name goes away. What a
 * kill left goes away with the next save of the same name, an hour later at the earliest.
 */
import { basename, dirname, join, resolve } from "node:path";
import { InputError } from "./errors.ts";

/** Writes a file atomically: readers see the old content or the new, never a part. Makes parent folders. */
export async function writeFileAtomic(path: string, content: Uint8Array | string): Promise<void> {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  await writeStreamAtomic(path, (write) => write(bytes));
}

/**
 * Like `writeFileAtomic`, for content that arrives in pieces.
 * @param fill is given `write`, which appends bytes; when `fill` throws, nothing is left behind
 */
export async function writeStreamAtomic(
  path: string,
  fill: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(path);
  try {
    await Deno.mkdir(dirname(temporary), { recursive: true });
    using file = await Deno.open(temporary, { write: true, createNew: true });
    await fill(async (bytes) => {
      for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
    });
    await file.sync();
    await Deno.rename(temporary, path);
  } catch (error) {
    await removeIfThere(temporary);
    throw unwritable(path, error);
  }
  await syncFolder(dirname(path));
  await removeLeft(path);
}

/**
 * Builds a folder atomically: `build` fills a temporary sibling, every file in it is flushed, then it is
 * swapped in. An old folder is renamed away only in that last step and deleted after it. A kill before
 * the swap leaves the old folder untouched; a kill in the instant between its two renames leaves the old
 * one whole as `.NAME.….old` and the new one whole as `.NAME.….tmp`.
 * @throws InputError when `checkReplaceable(dir)` does; whatever `build` throws
 */
export async function writeFolderAtomic(dir: string, build: (tmp: string) => Promise<void>): Promise<void> {
  await checkReplaceable(dir);
  const target = resolve(dir);
  const temporary = temporaryName(target);
  try {
    await Deno.mkdir(temporary, { recursive: true });
    await build(temporary);
    await syncTree(temporary);
    const old = `${temporary.slice(0, -".tmp".length)}.old`;
    const replaced = await exists(target);
    if (replaced) await Deno.rename(target, old);
    try {
      await Deno.rename(temporary, target);
    } catch (error) {
      if (replaced) await Deno.rename(old, target);
      throw error;
    }
    await syncFolder(dirname(target));
    if (replaced) await removeIfThere(old);
    await removeLeft(target);
  } catch (error) {
    await removeIfThere(temporary);
    throw unwritable(dir, error);
  }
}

/** Files that mark a folder as a model or adapter, which an output folder may replace. */
const MODEL_MARKS = ["config.json", "adapter_config.json"];

/**
 * Refuses to let `writeFolderAtomic` replace anything but an empty folder or an earlier model: replacing
 * deletes what was there.
 * @throws InputError when `dir` is a file, or a folder with other content
 */
export async function checkReplaceable(dir: string): Promise<void> {
  const names: string[] = [];
  let subfolder = false;
  try {
    for await (const entry of Deno.readDir(dir)) {
      names.push(entry.name);
      subfolder ||= entry.isDirectory;
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw new InputError(`Cannot write the folder ${dir}: ${(error as Error).message}`, { cause: error });
  }
  if (names.length === 0 || (!subfolder && MODEL_MARKS.some((mark) => names.includes(mark)))) return;
  throw new InputError(`Cannot replace the folder ${dir}: it holds something other than a model`, {
    hint: "Name a new or an empty folder",
  });
}

/**
 * Makes sure that an output can be created, before the work that leads to it starts.
 * @param path a file, or with `kind` "folder" the destination of `writeFolderAtomic`
 * @throws InputError when its nearest existing parent is not a writable folder, or when `path` exists as
 *   the other kind
 */
export async function checkWritable(path: string, kind: "file" | "folder" = "file"): Promise<void> {
  if (kind === "folder") await checkReplaceable(path);
  else if ((await stat(path))?.isDirectory) {
    throw new InputError(`Cannot write ${path}: it is a folder`);
  }
  let parent = dirname(resolve(path));
  while (!(await exists(parent)) && dirname(parent) !== parent) parent = dirname(parent);
  const probe = temporaryName(join(parent, "probe"));
  try {
    await Deno.writeFile(probe, new Uint8Array(), { createNew: true });
  } catch (error) {
    const reason = (error as Error).message;
    throw new InputError(`Cannot write ${path}: ${parent} is not a writable folder (${reason})`, {
      cause: error,
    });
  }
  await removeIfThere(probe);
}

/** A file-system error (full disk, no permission) as an InputError; any other error as it is. */
function unwritable(path: string, error: unknown): unknown {
  const fromSystem = error instanceof Error &&
    Object.values(Deno.errors).some((kind) => error instanceof kind);
  if (!fromSystem && (error as { code?: string }).code === undefined) return error;
  return new InputError(`Cannot write ${path}: ${(error as Error).message}`, { cause: error });
}

/** A hidden name beside `path` that no other run uses. */
function temporaryName(path: string): string {
  const full = resolve(path);
  const unique = `${Deno.pid}-${crypto.randomUUID().slice(0, 8)}`;
  return join(dirname(full), `.${basename(full).slice(0, 100)}.${unique}.tmp`);
}

/** A temporary name of a save, with the beginning of the name that it is for. */
const TEMPORARY = /^\.(.+)\.\d+-[0-9a-f]{8}\.tmp$/s;
/** Milliseconds without a write after which nobody is at work on a temporary file any more. */
const ABANDONED = 3600e3;
/** What earlier processes left in a folder, by that name; each folder is looked at once. */
const LEFT = new Map<string, Promise<Map<string, string[]>>>();

/** Removes what killed saves of this very name left beside it. */
async function removeLeft(path: string): Promise<void> {
  const folder = dirname(resolve(path)), name = basename(path).slice(0, 100);
  if (!LEFT.has(folder)) LEFT.set(folder, leftIn(folder));
  const left = await LEFT.get(folder)!;
  for (const temporary of left.get(name) ?? []) {
    if (Date.now() - await lastWrite(temporary) > ABANDONED) await removeIfThere(temporary);
  }
  left.delete(name);
}

async function leftIn(folder: string): Promise<Map<string, string[]>> {
  const entries = await Array.fromAsync(Deno.readDir(folder)).catch(() => []);
  const names = entries.map(({ name }) => name).filter((name) => TEMPORARY.test(name));
  const groups = Map.groupBy(names, (name) => TEMPORARY.exec(name)![1]);
  return new Map([...groups].map(([of, names]) => [of, names.map((name) => join(folder, name))]));
}

/** When a file, or anything in a folder, was last written, in milliseconds. */
async function lastWrite(path: string): Promise<number> {
  const info = await stat(path);
  const inside = info?.isDirectory ? await Array.fromAsync(Deno.readDir(path)).catch(() => []) : [];
  const times = await Promise.all(inside.map(({ name }) => lastWrite(join(path, name))));
  return Math.max(info?.mtime?.getTime() ?? 0, ...times);
}

async function stat(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch {
    return undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path)) !== undefined;
}

async function removeIfThere(path: string): Promise<void> {
  await Deno.remove(path, { recursive: true }).catch(() => {});
}

/** Flushes every file under a folder, then the folders. */
async function syncTree(dir: string): Promise<void> {
  for await (const entry of Deno.readDir(dir)) {
    const path = join(dir, entry.name);
    if (entry.isDirectory) await syncTree(path);
    else await syncFolder(path);
  }
  await syncFolder(dir);
}

/** Flushes a folder's entries (or a file); some systems refuse, and then there is nothing to be done. */
async function syncFolder(path: string): Promise<void> {
  try {
    using handle = await Deno.open(path, { read: true });
    await handle.sync();
  } catch {
    // Not every file system can flush a folder; the rename itself is still atomic.
  }
}
