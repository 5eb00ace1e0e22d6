/** Fixtures of the authors' code: tensors by name. */
import { openFile } from "../../engine/io/source.ts";
import { parseSafetensors } from "../../engine/io/safetensors.ts";

/** The fixtures' folder. */
export const fixtures = new URL("../fixtures/", import.meta.url).pathname;

/** All tensors of a file, in f32. */
export async function tensorsOf(path: string): Promise<Map<string, Float32Array>> {
  const file = await parseSafetensors(await openFile(path));
  const out = new Map<string, Float32Array>();
  for (const entry of file.entries.values()) {
    out.set(entry.name, new Float32Array((await file.read(entry)).slice().buffer));
  }
  file.source.close();
  return out;
}
