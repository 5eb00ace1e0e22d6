/**
 * The bytes of a dataset: a file, atlas' own sets, or a published file that is fetched once into the cache.
 */
import { basename, join } from "node:path";
import { atlasData } from "../../atlas/mod.ts";
import { writeStreamAtomic } from "../../engine/io/atomic.ts";
import { cacheFolder } from "../../engine/io/cache.ts";
import { InputError } from "../../engine/io/errors.ts";

/** A dataset before it is read. */
export interface Source {
  /** File name without path, or the name it was asked for by. */
  name: string;
  bytes: Uint8Array;
}

/** Told how many bytes of a download are there, of how many if that is known. */
export type DownloadProgress = (done: number, total?: number) => void;

/** Bytes of a file at most. */
const MAX_BYTES = 2 ** 31;

/** Where the authors of ROME keep their data; a mirror is named by EMEND_DATA_ENDPOINT. */
const ENDPOINT = "https://rome.baulab.info";

/** Published files by name. */
const PUBLISHED: Record<string, { path: string; file: string }> = {
  counterfact: { path: "/data/dsets/counterfact.json", file: "counterfact.json" },
  zsre: { path: "/data/dsets/zsre_mend_eval.json", file: "zsre_mend_eval.json" },
};

/** atlas' sets by name. */
const EMBEDDED: Record<string, string> = { atlas: "counterfact.json", "atlas-zsre": "zsre.json" };

/** Names that stand for a dataset; anything else is a path. */
export const DATASET_NAMES: readonly string[] = [...Object.keys(EMBEDDED), ...Object.keys(PUBLISHED)];

/**
 * Reads a dataset's bytes.
 * @throws {InputError} when there is no such file, it is a folder or too large, or a download fails
 */
export async function readSource(nameOrPath: string, progress?: DownloadProgress): Promise<Source> {
  const embedded = EMBEDDED[nameOrPath];
  if (Object.hasOwn(EMBEDDED, nameOrPath)) {
    return { name: nameOrPath, bytes: new TextEncoder().encode(await atlasData(embedded)) };
  }
  if (Object.hasOwn(PUBLISHED, nameOrPath)) {
    return { name: nameOrPath, bytes: await readFile(await fetchPublished(nameOrPath, progress)) };
  }
  return { name: basename(nameOrPath), bytes: await readFile(nameOrPath) };
}

async function readFile(path: string): Promise<Uint8Array> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
    throw new InputError(
      `Cannot read ${path}: ${missing ? "there is no such file" : (error as Error).message}`,
      {
        ...(missing && { hint: `Name a file, or one of ${DATASET_NAMES.join(", ")}` }),
      },
    );
  }
  if (info.isDirectory) {
    throw new InputError(`Cannot read ${path}: it is a folder`, { hint: "Name a file in it" });
  }
  if (info.size > MAX_BYTES) {
    throw new InputError(`Cannot read ${path}: it has ${info.size} bytes; at most ${MAX_BYTES} are read`);
  }
  try {
    return await Deno.readFile(path);
  } catch (error) {
    throw new InputError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

/** The path of a published file in the cache, fetched if it is not there yet. */
async function fetchPublished(name: string, progress: DownloadProgress | undefined): Promise<string> {
  const { path, file } = PUBLISHED[name];
  const url = `${(Deno.env.get("EMEND_DATA_ENDPOINT") || ENDPOINT).replace(/\/+$/, "")}${path}`;
  const kept = join(cacheFolder(), "datasets", file);
  if (await Deno.stat(kept).then(({ isFile }) => isFile, () => false)) return kept;
  const hint = `Fetch it by other means and give --dataset the path of the file, or put it at ${kept}`;
  const fail = (why: string): never => {
    throw new InputError(`Cannot fetch ${name} from ${url}: ${why}`, { hint });
  };
  const response: Response = await fetch(url).catch((error) => fail(error.cause?.message ?? error.message));
  if (!response.ok || response.body === null) {
    await response.body?.cancel();
    return fail(`HTTP ${response.status}`);
  }
  // A length is of the bytes on the way, which may be compressed.
  const length = response.headers.has("content-encoding")
    ? undefined
    : response.headers.get("content-length");
  const total = length ? Number(length) : undefined;
  await writeStreamAtomic(kept, async (write) => {
    let done = 0;
    try {
      for await (const piece of response.body!) {
        done += piece.length;
        if (done > MAX_BYTES) fail(`it has more than ${MAX_BYTES} bytes`);
        await write(piece);
        progress?.(done, total);
      }
    } catch (error) {
      if (error instanceof InputError || !(error instanceof TypeError)) throw error;
      fail(`the connection broke after ${done} bytes (${error.message})`);
    }
    if (total !== undefined && done !== total) fail(`${done} of ${total} bytes came`);
  });
  return kept;
}
