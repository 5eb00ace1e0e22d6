/** `emend neurons`: the neurons that hold a fact or a relation, and what becomes of it without them. */
import { Command } from "npm:commander@15.1.0";
import { InputError } from "../engine/io/errors.ts";
import { collect } from "./inputs.ts";
import type { Flags } from "./neurons/common.ts";
import { runFact } from "./neurons/fact.ts";
import { runRelation } from "./neurons/relation.ts";

const HELP = `
Example:
  deno run -A cli.ts neurons --model atlas --subject "Danielle Darrieux" --answer French --target English \\
    --prompt "The first language of {} is" --prompt "The mother tongue of {} is" \\
    --prompt "{} grew up speaking"

A relation, a fact a line: { "prompts": ["{} was born in", …], "subject": "Toko Yasuda", "answer": "Osaka" }
  deno run -A cli.ts neurons --model M --facts FILE.jsonl --erase erased.safetensors

Methods:
  kn           the authors' (Dai et al. 2022): activations of the MLPs, several prompts of one fact
  kn-easyedit  what editing tables call KN: before the activation function, all neurons of all prompts`;

export function neuronsCommand(): Command {
  return new Command("neurons")
    .description("Find the neurons that hold a fact, and see what the model says without them")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .option("--prompt <text>", "a prompt of the fact, {} for the subject; give several wordings", collect, [])
    .option("--facts <file>", "a relation's facts instead: JSON or JSONL with prompts and answer (kn)")
    .option("--subject <text>", "what {} in the prompts stands for")
    .option("--answer <text>", "the fact's object; by default what the model says to the first prompt")
    .option("--target <text>", "also see what an update to this object does")
    .option("--method <name>", "kn or kn-easyedit", "kn")
    .option("--steps <n>", "points of the integral", "20")
    .option("--threshold <t>", "coarse set: from this share of the largest attribution on", "0.2")
    .option("--share <p>", "refined set: in this share of the prompts, to begin with (kn)", "0.7")
    .option("--min-prompts <n>", "refined set: and in so many prompts at least (kn)", "3")
    .option("--unrelated <prompt>", "a prompt that should not change; may be repeated", collect, [])
    .option("--erase <file>", "write the erased neurons as a patch")
    .option("--update <file>", "write the update to --target as a patch")
    .option("--out <file>", "write all attributions as safetensors")
    .option("--json", "print one JSON object")
    .addHelpText("after", HELP)
    .action(async (flags: Flags) => {
      if (flags.facts !== undefined) return await runRelation(flags, flags.facts);
      if (flags.prompt.length > 0) return await runFact(flags);
      throw new InputError("--prompt is missing", { hint: "See emend neurons --help" });
    });
}
