#!/usr/bin/env -S deno run -A
/**
 * The command line's front door: `deno run -A cli.ts --help`. Each command is a file in cli/.
 */
import { main } from "./cli/main.ts";

if (import.meta.main) Deno.exit(await main(Deno.args));
