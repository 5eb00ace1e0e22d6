/**
 * What is dear to compute from statistics (Cholesky factors, projectors), kept on the disk beside them. An
 * entry is named by what it was computed from, so it is never out of date; one that is damaged counts as
 * absent and is made anew. The file: a mark, the SHA-256 of the content, the content.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { writeStreamAtomic } from "../engine/io/atomic.ts";
import { cacheFolder } from "../engine/io/cache.ts";

/** What an entry is. */
export type FactorKind = "cholesky" | "projector";

/** Sixteen bytes, so that the content starts at a multiple of 8. */
const MARK = new TextEncoder().encode("emend factor v1\n");
const DIGEST_BYTES = 32;

/** SHA-256 in hex over JSON lines and arrays: the key of what is computed from them. */
export function factorKey(facts: unknown, ...arrays: readonly (Float32Array | Float64Array)[]): string {
  const sha = createHash("sha256").update(JSON.stringify(facts) + "\n");
  for (const { buffer, byteOffset, byteLength } of arrays) {
    sha.update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  return sha.digest("hex");
}

/** Where an entry lies. */
export function factorPath(kind: FactorKind, key: string): string {
  return join(cacheFolder(), "statistics", "factors", `${kind}-${key.slice(0, 32)}`);
}

/** The bytes of an entry; undefined when there is none, or a damaged one, which is removed. */
export async function readFactor(
  kind: FactorKind,
  key: string,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const path = factorPath(kind, key);
  const bytes = await Deno.readFile(path).catch(() => undefined);
  if (bytes === undefined) return undefined;
  const content = bytes.subarray(MARK.length + DIGEST_BYTES);
  const whole = bytes.length >= MARK.length + DIGEST_BYTES &&
    equal(bytes.subarray(0, MARK.length), MARK) &&
    equal(bytes.subarray(MARK.length, MARK.length + DIGEST_BYTES), digestOf(content));
  if (whole) return content;
  await Deno.remove(path).catch(() => {});
  return undefined;
}

/**
 * Keeps the bytes of an entry: whole or not at all. The cache is only a convenience: where it cannot be
 * written, nothing happens.
 */
export async function writeFactor(kind: FactorKind, key: string, content: Uint8Array): Promise<void> {
  await writeStreamAtomic(factorPath(kind, key), async (write) => {
    await write(MARK);
    await write(digestOf(content));
    await write(content);
  }).catch(() => {});
}

function digestOf(content: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(content).digest());
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i]);
}
