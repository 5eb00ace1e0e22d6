/** `emend patch revert`: a model folder without its patches, or without some of them. */
import { Command } from "npm:commander@15.1.0";
import { join, resolve } from "node:path";
import { checkWritable } from "../../engine/io/atomic.ts";
import { openCheckpoint } from "../../engine/io/checkpoint.ts";
import { InputError } from "../../engine/io/errors.ts";
import { readRecord, STACK } from "../../patches/applied.ts";
import { type Patch, readPatch } from "../../patches/patch.ts";
import { revertPatches } from "../../patches/revert.ts";
import { collect } from "../inputs.ts";
import { modelPath } from "../model.ts";
import { checkOutput } from "../outputs.ts";
import { printJson } from "../terminal.ts";
import { changesTable, openFiles, patchesTable, short, stages } from "./common.ts";
import { readSelection } from "./selection.ts";

interface Flags {
  model: string;
  without: string[];
  base?: string;
  out: string;
  json?: boolean;
}

export function revertCommand(): Command {
  return new Command("revert")
    .description("Take patches off a written model: all give the original files back, byte for byte")
    .requiredOption("--model <dir>", "the edited model's folder")
    .option("--without <n|file>", "only this patch, by number or file; may be repeated", collect, [])
    .option("--base <M>", "the original model, where the folder kept nothing; it is only read")
    .requiredOption("--out <dir>", "write it there; may be the edited folder itself, which is then replaced")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
A folder that patch apply wrote needs no base. Without one of several patches it is, byte for byte, the
folder that never had it. Of a GGUF base, --base FILE.gguf --out COPY.gguf gives the file back.

Example:
  deno run -A cli.ts patch revert --model edited --out original
  deno run -A cli.ts patch revert --model edited --without 2 --out edited`,
    )
    .action((flags: Flags) => runRevert(flags));
}

async function runRevert(flags: Flags): Promise<void> {
  const { out } = flags;
  const path = await modelPath(flags.model);
  if (!(await Deno.stat(path)).isDirectory) throw new InputError(`${path} is no model folder`);
  using base = flags.base === undefined ? undefined : await openFiles(flags.base);
  if (base?.kind === "gguf" && flags.without.length === 0) {
    if (resolve(out) === resolve(base.path)) throw new InputError("--out and --base name one file");
    await checkOutput(out, "a GGUF file", async (path) => (await openCheckpoint(path)).close());
  } else await checkWritable(out, "folder");
  if (await readRecord(path) === undefined && base === undefined) {
    throw new InputError(`${path} has no record of applied patches`, {
      hint: "Give the base model with --base",
    });
  }
  const choose = flags.without.length > 0 ? await selection(path, flags.without) : undefined;
  using bars = stages();
  const { onProgress, onCheck } = bars;
  const { base: made, removed, left, changes } = await revertPatches(path, out, {
    select: choose,
    base,
    onProgress,
    onCheck,
  });
  bars[Symbol.dispose]();
  if (flags.json) {
    const patches = left.map(({ method, requests }, i) => ({ number: i + 1, method, requests }));
    const { hash, name } = made;
    return printJson({
      model: flags.model,
      base: { hash, name },
      removed: removed ?? null,
      patches,
      weights_changed: changes,
      written: [out],
    });
  }
  const count = removed === undefined ? "The edit" : removed === 1 ? "1 patch" : `${removed} patches`;
  if (left.length === 0) {
    console.log(`${count} taken off: ${out} holds the bytes of ${made.name} (${short(made.hash)})`);
  } else {
    console.log(
      `${count} taken off, ${left.length} left\n\n${patchesTable(left)}\n\n${changesTable(changes)}\n`,
    );
  }
  console.log(`written: ${out}`);
}

/** Finds the named patches, before any work. */
async function selection(path: string, wanted: string[]): Promise<(patch: Patch) => number[]> {
  const select = await readSelection(wanted);
  if (await readRecord(path)) select(await readPatch(join(path, STACK)));
  return select;
}
