/** Real statistics of keys for the solver tests: SmolLM2's layer 10 from the user's cache, where it is. */
import { join } from "node:path";
import { readStatistics } from "../../../editors/statistics.ts";
import { cacheFolder } from "../../../engine/io/cache.ts";

/** Key width of SmolLM2-135M. */
const WIDTH = 1536;

/** C of layer 10, packed; undefined and a line that says so where the cache has none. */
export async function realStatistics(): Promise<
  { name: string; n: number; lower: Float32Array } | undefined
> {
  const folder = join(cacheFolder(), "statistics");
  for (const path of await filesOf(folder)) {
    if (!path.includes("layer-10-")) continue;
    const { origin, lower } = await readStatistics(path);
    if (origin.width === WIDTH) return { name: "C of SmolLM2's layer 10", n: WIDTH, lower };
  }
  console.log(`skipped: real statistics (make them with the stats command on SmolLM2-135M, layer 10)`);
}

async function filesOf(folder: string): Promise<string[]> {
  const found: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      const path = join(folder, name);
      if (isDirectory) found.push(...await filesOf(path));
      else if (name.endsWith(".safetensors")) found.push(path);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return found.sort();
}
