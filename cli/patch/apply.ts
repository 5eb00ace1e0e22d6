/** `emend patch apply` and `emend patch merge`: a model with patches, with and without a memory of them. */
import { Command } from "npm:commander@15.1.0";
import { join } from "node:path";
import { checkWritable } from "../../engine/io/atomic.ts";
import { applyPatches, ORIGINALS, RECORD, STACK } from "../../patches/applied.ts";
import { checkCheckpointFolder, type TensorChange, writeCheckpoint } from "../../patches/checkpoint.ts";
import { type Patch, requireBase } from "../../patches/patch.ts";
import { requireWeights } from "../../patches/prompt_patch.ts";
import { partsOf, stackPatches } from "../../patches/stack.ts";
import { collect } from "../inputs.ts";
import { printJson } from "../terminal.ts";
import { bytes, changesTable, openFiles, patchesTable, readPatches, stages } from "./common.ts";

interface Flags {
  model: string;
  patch: string[];
  out: string;
  json?: boolean;
}

export function applyCommand(): Command {
  return sharedFlags(new Command("apply"))
    .description("Write a model with patches applied that remembers them: patch revert takes them off again")
    .addHelpText(
      "after",
      `
Beside the edited model lie ${RECORD} (what was applied), ${STACK} (the patches) and
${ORIGINALS} (the original bytes of the changed tensors, so that no base is needed to go back).
The patches must be for this model; a folder that patch apply wrote takes more of its base's on top.

Example:
  deno run -A cli.ts patch apply --model atlas --patch paris.safetensors --out edited`,
    )
    .action((flags: Flags) => runApply(flags));
}

export function mergeCommand(): Command {
  return sharedFlags(new Command("merge"))
    .description("Write a plain model with patches merged into its weights, and nothing else")
    .addHelpText(
      "after",
      `
The weights are those of patch apply; only the base itself can give back what they were. To make one
patch of several, see patch stack.

Example:
  deno run -A cli.ts patch merge --model atlas --patch paris.safetensors rome.safetensors --out merged`,
    )
    .action((flags: Flags) => runMerge(flags));
}

function sharedFlags(command: Command): Command {
  return command
    .requiredOption("--model <M>", "the base: a model folder, a .gguf file, or atlas")
    .option("--patch <file...>", "the patches, in order; several, or the flag repeated", collect, [])
    .requiredOption("--out <dir>", "write the edited model there, in the base's dtype")
    .option("--json", "print one JSON object");
}

async function runApply(flags: Flags): Promise<void> {
  const { out } = flags;
  await checkWritable(out, "folder");
  const patches = await readPatches(flags.patch);
  using checkpoint = await openFiles(flags.model);
  await checkCheckpointFolder(out, checkpoint);
  using bars = stages();
  const { onProgress, onCheck } = bars;
  const { patch, changes, record } = await applyPatches(out, checkpoint, patches, {
    names: flags.patch,
    onProgress,
    onCheck,
  });
  bars[Symbol.dispose]();
  const kept = record.files[ORIGINALS].bytes;
  report(flags, patch, changes, { revert: { file: join(out, ORIGINALS), bytes: kept } });
  if (!flags.json) console.log(`kept ${bytes(kept)} of original bytes for patch revert`);
}

async function runMerge(flags: Flags): Promise<void> {
  const { out } = flags;
  await checkWritable(out, "folder");
  const patches = await readPatches(flags.patch);
  using checkpoint = await openFiles(flags.model);
  await checkCheckpointFolder(out, checkpoint);
  for (const [i, patch] of patches.entries()) await requireBase(patch, { checkpoint }, flags.patch[i]);
  const patch = stackPatches(patches);
  requireWeights(patch, "a checkpoint");
  using bars = stages();
  const changes = await writeCheckpoint(out, checkpoint, patch.deltas, { onProgress: bars.onProgress });
  bars[Symbol.dispose]();
  report(flags, patch, changes, {});
}

function report(flags: Flags, patch: Patch, changes: TensorChange[], more: Record<string, unknown>): void {
  const { model, out } = flags;
  const parts = partsOf(patch);
  if (flags.json) {
    const patches = parts.map(({ method, requests }, i) => ({ number: i + 1, method, requests }));
    return printJson({ model, base: patch.base, patches, weights_changed: changes, ...more, written: [out] });
  }
  console.log(`${patchesTable(parts)}\n\n${changesTable(changes)}\n`);
  console.log(`written: ${out}`);
}
