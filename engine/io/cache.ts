/** Where emend keeps what can be made again: hashes, statistics, fetched files. */
import { join } from "node:path";

/** `$XDG_CACHE_HOME/emend`, or `~/.cache/emend`; in the working folder when there is no home. */
export function cacheFolder(): string {
  const home = Deno.env.get("HOME") ?? Deno.env.get("USERPROFILE");
  return join(Deno.env.get("XDG_CACHE_HOME") || join(home ?? ".", ".cache"), "emend");
}
