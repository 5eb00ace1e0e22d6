/** Where the tests' data is: small fixtures in the repository, real models where the machine has them. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheFolder } from "../../../engine/io/cache.ts";

/** A fixture's path. */
export function fixture(name: string): string {
  return fileURLToPath(new URL(`../../fixtures/io/${name}`, import.meta.url));
}

/** A JSON fixture. */
// deno-lint-ignore no-explicit-any
export function fixtureJson(name: string): any {
  return JSON.parse(Deno.readTextFileSync(fixture(name)));
}

/** The real models beside the repository, and the SmolLM2 GGUF file; undefined where absent. */
export const GPT2 = present(shared("gpt2"));
export const STORIES = present(shared("stories260k"));
export const SMOLLM2 = present(Deno.env.get("EMEND_SMOLLM2")) ??
  present(join(cacheFolder(), "models", "SmolLM2-135M-Instruct.Q4_1.gguf"));

function shared(model: string): string {
  return fileURLToPath(new URL(`../../../../shared/models/${model}`, import.meta.url));
}

function present(path: string | undefined): string | undefined {
  try {
    if (path !== undefined) Deno.statSync(path);
    return path;
  } catch {
    return undefined;
  }
}

/** A test that needs a real model; without it, it is skipped with a message that says how to get it. */
export function testWith(
  model: string | undefined,
  what: string,
  name: string,
  run: (path: string) => unknown,
): void {
  if (model === undefined) console.log(`skipped: ${name} (needs ${what})`);
  Deno.test({ name, ignore: model === undefined, fn: async () => void await run(model!) });
}

/** What `testWith` says is missing. */
export const NEEDS = {
  gpt2: "../shared/models/gpt2",
  stories: "../shared/models/stories260k",
  smollm2: "SmolLM2: deno run -A tools/smollm2.ts fetches it with pip, or set EMEND_SMOLLM2",
};

/** Runs with a fresh folder that is removed afterwards. */
export async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** All bytes of an async sequence of pieces, which must follow on one another. */
export async function gather(
  pieces: AsyncIterable<{ byteOffset: number; bytes: Uint8Array }>,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let at = 0;
  for await (const { byteOffset, bytes } of pieces) {
    if (byteOffset !== at) throw new Error(`Piece at ${byteOffset} where ${at} was expected`);
    parts.push(bytes);
    at += bytes.length;
  }
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
}

/** SHA-256 in hex. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes as BufferSource);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The F32 bytes of elements in another weight dtype, computed apart from the code under test. */
export function widen(dtype: string, bytes: Uint8Array): Uint8Array {
  if (dtype === "F32") return bytes;
  const words = new Uint16Array(bytes.slice().buffer);
  const wide = dtype === "BF16"
    ? Uint32Array.from(words, (bits) => bits << 16)
    : Float32Array.from(new Float16Array(words.buffer));
  return new Uint8Array(wide.buffer);
}

/** A safetensors file in memory, from any header (an object, or text for malformed ones) and data. */
export function safetensorsBytes(
  header: unknown,
  data: Uint8Array | number = 0,
  length?: bigint,
): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const body = typeof data === "number" ? new Uint8Array(data) : data;
  const out = new Uint8Array(8 + json.length + body.length);
  new DataView(out.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  out.set(json, 8);
  out.set(body, 8 + json.length);
  return out;
}
