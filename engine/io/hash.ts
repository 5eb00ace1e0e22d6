/**
 * The hash that ties a patch to its base model: SHA-256 over the tensors as they are stored, so that it
 * depends on neither the config nor how a checkpoint is split into files. Hashing reads everything, so
 * results are remembered by path, size and modification time.
 */
import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { writeFileAtomic } from "./atomic.ts";
import { cacheFolder } from "./cache.ts";
import { isObject } from "./json.ts";
import type { ByteSource } from "./source.ts";

/** A tensor to hash: its bytes are `bytes` long from `offset` of `source`. */
export interface HashedTensor {
  name: string;
  dtype: string;
  shape: readonly number[];
  source: ByteSource;
  offset: number;
  bytes: number;
}

/** Bytes read at a time. */
const PIECE = 8 * 2 ** 20;

/**
 * SHA-256 in hex over, for each tensor in order of name, one JSON line [name, dtype, shape] and its bytes.
 */
export async function hashTensors(tensors: Iterable<HashedTensor>): Promise<string> {
  const sha = createHash("sha256");
  const sorted = [...tensors].sort((a, b) => a.name < b.name ? -1 : 1);
  for (const { name, dtype, shape, source, offset, bytes } of sorted) {
    sha.update(JSON.stringify([name, dtype, shape]) + "\n");
    for (let at = 0; at < bytes; at += PIECE) {
      sha.update(await source.read(offset + at, Math.min(PIECE, bytes - at)));
    }
  }
  return sha.digest("hex");
}

/**
 * `compute()`, or what it returned before for the same files. The cache is only a convenience: when it
 * cannot be read or written, nothing happens.
 */
export async function cachedHash(paths: string[], compute: () => Promise<string>): Promise<string> {
  const key = await identity(paths);
  if (key === undefined) return await compute();
  const file = join(cacheFolder(), "hashes.json");
  const known = (await readCache(file))[key];
  if (known !== undefined) return known;
  const hash = await compute();
  const entries = Object.entries(await readCache(file)).filter(([other]) => other !== key);
  const kept = Object.fromEntries([...entries.slice(1 - MAX_ENTRIES), [key, hash]]);
  await writeFileAtomic(file, JSON.stringify(kept, null, 1)).catch(() => {});
  return hash;
}

const MAX_ENTRIES = 500;

/** Path, size and modification time of every file, or undefined where there are none. */
async function identity(paths: string[]): Promise<string | undefined> {
  try {
    const parts = await Promise.all(paths.map(async (path) => {
      const { size, mtime } = await Deno.stat(path);
      return [resolve(path), size, mtime!.getTime()];
    }));
    return JSON.stringify(parts);
  } catch {
    return undefined;
  }
}

async function readCache(file: string): Promise<Record<string, string>> {
  try {
    const cache: unknown = JSON.parse(await Deno.readTextFile(file));
    const isHash = (item: unknown) => typeof item === "string" && /^[0-9a-f]{64}$/.test(item);
    return isObject(cache) && Object.values(cache).every(isHash) ? cache as Record<string, string> : {};
  } catch {
    return {};
  }
}
