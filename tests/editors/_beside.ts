/** Fixtures of the methods that put something beside the weights: tests/fixtures/beside. */
import { parseSafetensors } from "../../engine/io/safetensors.ts";
import { openFile } from "../../engine/io/source.ts";

const FIXTURES = new URL("../fixtures/beside/", import.meta.url).pathname;

/** What was done, and the tensors that the reference implementation made of it. */
// deno-lint-ignore no-explicit-any -- parsed JSON
export async function besideFixture(name: string): Promise<{ spec: any; want: Map<string, Float32Array> }> {
  const spec = JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}.json`));
  const file = await parseSafetensors(await openFile(`${FIXTURES}${name}.safetensors`));
  const want = new Map<string, Float32Array>();
  for (const entry of file.entries.values()) {
    want.set(entry.name, new Float32Array((await file.read(entry)).slice().buffer));
  }
  file.source.close();
  return { spec, want };
}
