/**
 * The program: commands, help, and what becomes of errors. Exit codes: 0 done, 1 the work failed, 2 the call
 * was wrong.
 */
import { Command, CommanderError } from "npm:commander@15.1.0";
import manifest from "../deno.json" with { type: "json" };
import { InputError } from "../engine/io/errors.ts";
import { demoCommand } from "./demo.ts";
import { doctorCommand } from "./doctor.ts";
import { editCommand } from "./edit.ts";
import { evalCommand } from "./eval.ts";
import { generateCommand } from "./generate.ts";
import { neuronsCommand } from "./neurons.ts";
import { patchCommand } from "./patch.ts";
import { recipeCommand } from "./recipe.ts";
import { reportCommand } from "./report.ts";
import { statsCommand } from "./stats.ts";
import { testCommand } from "./test.ts";
import { traceCommand } from "./trace.ts";
import { trainCommand } from "./train.ts";

/** The whole command line; for tests and documentation. */
export function program(): Command {
  const program = new Command("emend")
    .description("Changes what a language model believes, and proves it")
    .version(manifest.version)
    .option("--debug", "show stack traces")
    .showSuggestionAfterError();
  for (
    const make of [
      editCommand,
      evalCommand,
      generateCommand,
      neuronsCommand,
      patchCommand,
      recipeCommand,
      reportCommand,
      statsCommand,
      testCommand,
      traceCommand,
      trainCommand,
      doctorCommand,
      demoCommand,
    ]
  ) {
    program.addCommand(make().exitOverride());
  }
  return program.exitOverride();
}

/** Runs a command line; returns the exit code. */
export async function main(args: string[]): Promise<number> {
  try {
    await program().parseAsync(args.filter((a) => a !== "--debug"), { from: "user" });
    return Deno.exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const e = error as Error & { hint?: string };
    if (args.includes("--debug")) console.error(e);
    else {
      console.error(`error: ${e.message}`);
      if (e.hint && !e.message.includes(e.hint)) console.error(e.hint);
    }
    return error instanceof InputError ? 2 : 1;
  }
}
