/** `emend patch`: edits as files. Each sub-command is a file in cli/patch/. */
import { Command } from "npm:commander@15.1.0";
import { applyCommand, mergeCommand } from "./patch/apply.ts";
import { diffCommand } from "./patch/diff.ts";
import { exportCommand, importCommand } from "./patch/peft.ts";
import { revertCommand } from "./patch/revert.ts";
import { showCommand } from "./patch/show.ts";
import { stackCommand } from "./patch/stack.ts";

export function patchCommand(): Command {
  const patch = new Command("patch")
    .description("Show, apply, revert, stack, merge, compare and convert patch files")
    .addHelpText(
      "after",
      `
A patch is an edit as a file; docs/patches.md tells what becomes of it.
  apply   patches + model → a model folder that remembers them and can go back
  merge   patches + model → a plain model folder
  stack   patches → one patch

Example:
  deno run -A cli.ts patch show paris.safetensors`,
    );
  for (
    const make of [
      showCommand,
      applyCommand,
      revertCommand,
      stackCommand,
      mergeCommand,
      diffCommand,
      importCommand,
      exportCommand,
    ]
  ) {
    patch.addCommand(make().exitOverride());
  }
  return patch;
}
