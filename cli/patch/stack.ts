/** `emend patch stack`: several patches as one file, and any of them out of it again. */
import { Command } from "npm:commander@15.1.0";
import { readPatch, writePatch } from "../../patches/patch.ts";
import { partsOf, stackPatches, withoutParts } from "../../patches/stack.ts";
import { collect } from "../inputs.ts";
import { checkOutput } from "../outputs.ts";
import { printJson } from "../terminal.ts";
import { bytes, patchesTable, readPatches } from "./common.ts";
import { readSelection } from "./selection.ts";

interface Flags {
  without: string[];
  patch: string;
  json?: boolean;
}

export function stackCommand(): Command {
  return new Command("stack")
    .description("Make one patch of several, in order, that remembers each of them")
    .argument("<file...>", "patch files; stacks among them give their parts")
    .option("--without <n|file>", "leave this one out, by number or file; may be repeated", collect, [])
    .requiredOption("--patch <file>", "write the stack there")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
A stack is a patch like any other. Leaving a patch out of a stack gives, byte for byte, the stack that
never had it; leaving out all but one gives that one's file.

Example:
  deno run -A cli.ts patch stack paris.safetensors rome.safetensors --patch both.safetensors
  deno run -A cli.ts patch stack both.safetensors --without 1 --patch rome.safetensors`,
    )
    .action((files: string[], flags: Flags) => runStack(files, flags));
}

async function runStack(files: string[], flags: Flags): Promise<void> {
  const out = flags.patch;
  await checkOutput(out, "a patch", readPatch);
  const all = stackPatches(await readPatches(files));
  const select = await readSelection(flags.without);
  const stack = withoutParts(all, select(all));
  await writePatch(out, stack);
  const parts = partsOf(stack);
  if (flags.json) {
    const patches = parts.map(({ method, requests }, i) => ({ number: i + 1, method, requests }));
    return printJson({ base: stack.base, patches, written: [out] });
  }
  console.log(`${patchesTable(parts)}\n`);
  console.log(`written: ${out} (${bytes((await Deno.stat(out)).size)}, for ${stack.base.name})`);
}
