/** `emend patch export` and `emend patch import`: patches as PEFT LoRA adapters and back. */
import { Command } from "npm:commander@15.1.0";
import { checkWritable } from "../../engine/io/atomic.ts";
import { type Patch, readPatch, writePatch } from "../../patches/patch.ts";
import { writePeft } from "../../patches/peft.ts";
import { readPeft } from "../../patches/peft_import.ts";
import { frobenius } from "../../patches/norms.ts";
import { stackPatches } from "../../patches/stack.ts";
import { checkOutput } from "../outputs.ts";
import { printJson, table } from "../terminal.ts";
import { openFiles, readPatches } from "./common.ts";

interface Flags {
  peft: string;
  json?: boolean;
}

interface ImportFlags extends Flags {
  model: string;
  patch: string;
}

export function exportCommand(): Command {
  return new Command("export")
    .description("Write patches as one PEFT LoRA adapter, for everything that loads LoRA")
    .argument("<file...>", "patch files, in order")
    .requiredOption("--peft <dir>", "write the adapter there")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExample:\n  deno run -A cli.ts patch export paris.safetensors rome.safetensors --peft adapter",
    )
    .action((files: string[], flags: Flags) => runExport(files, flags));
}

export function importCommand(): Command {
  return new Command("import")
    .description("Make a patch of a PEFT LoRA adapter")
    .requiredOption("--peft <dir>", "the adapter: adapter_config.json and adapter_model.safetensors")
    .requiredOption("--model <M>", "the model that it is for: a model folder, a .gguf file, or atlas")
    .requiredOption("--patch <file>", "write the patch there")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
An adapter names its model but does not prove it: the patch is for the model given here.

Example:
  deno run -A cli.ts patch import --peft adapter --model base-folder --patch adapter.safetensors`,
    )
    .action((flags: ImportFlags) => runImport(flags));
}

async function runExport(files: string[], flags: Flags): Promise<void> {
  await checkWritable(flags.peft, "folder");
  const patch = stackPatches(await readPatches(files));
  await writePeft(flags.peft, patch);
  report(patch, flags, flags.peft);
}

async function runImport(flags: ImportFlags): Promise<void> {
  await checkOutput(flags.patch, "a patch", readPatch);
  using checkpoint = await openFiles(flags.model);
  const patch = await readPeft(flags.peft, checkpoint);
  await writePatch(flags.patch, patch);
  report(patch, flags, flags.patch);
}

function report({ base, deltas }: Patch, { json }: Flags, written: string): void {
  const tensors = deltas.map((delta) => ({
    tensor: delta.tensor,
    rank: delta.kind === "low-rank" ? delta.ranks.length : undefined,
    frobenius: frobenius([delta]),
  }));
  if (json) return printJson({ base, tensors, written: [written] });
  console.log(table([
    ["tensor", "rank", "change"],
    ...tensors.map((t) => [t.tensor, String(t.rank), t.frobenius.toPrecision(4)]),
  ]));
  console.log(`\nwritten: ${written} (for ${base.name})`);
}
